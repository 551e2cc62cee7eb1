"""Docker mode without an engine: fake_docker.py says what runs, and how it is."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ops import containers, mounts
from ops.errors import OpsError
from ops.paths import PROJECT
from tests.ops.fake_docker import Docker


def test_up_waits_for_everything_and_says_where_it_is(docker: Docker) -> None:
    result = docker.ops("up")
    assert result.returncode == 0, result.stderr
    assert "Everything is healthy." in result.stdout
    for name, port in docker.ports.items():
        assert f"  {name:<19}http://localhost:{port}" in result.stdout
        assert f"  {name:<19}healthy after " in result.stdout
    assert not [line for line in (docker.folder / "asked").read_text().splitlines() if "locust" in line.split()]
    status = docker.ops("status")
    assert status.returncode == 0
    assert "Links" not in result.stdout + status.stdout
    elsewhere = docker.ops("status", GRAFANA_URL="https://grafana.example/")
    assert "\nLinks in messages: GRAFANA_URL=https://grafana.example\n" in elsewhere.stdout


@pytest.mark.parametrize("health", ["", "healthy"])
@pytest.mark.parametrize("life", [0.3, 3])
@pytest.mark.attack("a server that keeps crashing")
def test_a_crash_loop_is_not_healthy_between_two_crashes(docker: Docker, health: str, life: float) -> None:
    """As a store that cannot read its data: without a health check, or with one that succeeds early."""
    docker.life, docker.health = life, health
    result = docker.ops("up")
    assert result.returncode == 1
    assert result.stderr.splitlines()[0].endswith("postgres keeps crashing. The end of its log:"), result.stderr
    assert "Everything is healthy" not in result.stdout
    status = docker.ops("status")
    assert status.returncode == 1
    assert re.search(
        r"\n +(its container is restarting|has crashed within the last minute) \(restarts: \d+\)\n", status.stdout
    )
    assert status.stderr.startswith("Unhealthy: postgres.")


@pytest.mark.parametrize(
    ("restarts", "age", "health", "expected"),
    [
        (0, 0, "healthy", None),
        (1, 3, "", "has crashed within the last minute (restarts: 1)"),
        (1, 11, "", None),
        (5, 40, "healthy", "has crashed within the last minute (restarts: 5)"),
        (200, 61, "healthy", None),
        (3, 500, "unhealthy", "is unhealthy (restarts: 3)"),
    ],
)
def test_a_container_has_recovered_when_it_runs_for_long_enough(
    restarts: int, age: float, health: str, expected: str | None
) -> None:
    container = {"Service": "postgres", "State": "running", "Health": health}
    run = containers.Run(restarts, time.time() - age)
    assert containers.problem(container, run, ours=True) == expected


def test_the_log_of_a_server_that_does_not_become_healthy_is_shown(docker: Docker) -> None:
    """Compose says no more than that it is unhealthy: in its log is why, such as passwords of another checkout."""
    docker.write()
    script = docker.folder / "bin" / "docker"
    fails = """*"compose up"*) echo 'dependency failed: container mine-postgres-1 is unhealthy' >&2; exit 1;;
    *" logs "*) echo 'FATAL: password authentication failed';;
    """
    script.write_text(script.read_text().replace('*"compose up"*)', fails + '"no such"*)', 1))
    command = [sys.executable, "-m", "ops", "up"]
    result = subprocess.run(command, cwd=PROJECT, env=docker.environment, capture_output=True, text=True)
    assert result.returncode == 1
    end = "container mine-postgres-1 is unhealthy\nThe end of its log:\n  FATAL: password authentication failed\n"
    assert result.stderr.endswith(end)


def test_overrides_of_every_shape_are_taken(docker: Docker, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    of_ours = docker.ports
    services = {
        "proxy": {
            "ports": [
                {"published": "5678", "target": 5678, "host_ip": "10.0.0.1"},  # a debugger's, at an address of its own
                {"published": "8001-8003", "target": 8000},  # of a range
            ]
        },
        "prometheus": {},  # none at all
        "alertmanager": {"ports": [{"published": str(of_ours["alertmanager"]), "target": 9093, "host_ip": "10.0.0.1"}]},
        "grafana": {"ports": [{"target": 3000}]},  # a port of the engine's choice
        "postgres": {},
        "cadvisor": {
            "ports": [{"published": "8080-8090", "target": 8080}],
            "volumes": [{"type": "bind", "source": str(closed)}, {"type": "tmpfs"}, {"type": "bind", "source": "/sys"}],
        },
        "dns": {"ports": [{"published": "53", "target": 53, "protocol": "udp"}]},
    }
    docker.override = {"services": services, "secrets": {"key": {"environment": "KEY"}, "other": {"external": True}}}
    docker.health = ""  # no health check
    docker.also = [{"Service": "migrate", "State": "exited", "Status": "Exited (0)", "ExitCode": 0}]
    result = docker.ops("up")
    assert result.returncode == 0, result.stdout + result.stderr
    found = [line.split() for line in result.stdout.splitlines() if "http://" in line]
    assert found == [
        ["proxy", "http://localhost:8003/"],
        ["alertmanager", f"http://10.0.0.1:{of_ours['alertmanager']}"],
        ["grafana", "http://localhost:49153"],
    ]
    del docker.override["secrets"]
    assert docker.ops("status").returncode == 0


def test_backup_and_restore_leave_out_a_server_that_an_override_has_removed(docker: Docker) -> None:
    """`grafana: !reset null`, where another Grafana shows the dashboards."""

    def copied(program: str) -> set[str]:
        """The servers whose data were packed (tar) or replaced (sh) since the last call."""
        lines = [line.split() for line in docker.asked("run") if f"--entrypoint={program}" in line.split()]
        (docker.folder / "asked").write_text("")
        return {words[words.index(f"--entrypoint={program}") + 1] for words in lines}

    def backup() -> str:
        (docker.folder / "up").touch()
        result = docker.ops("backup", BACKUPS_DIR=str(docker.folder / "backups"))
        assert result.returncode == 0, result.stderr
        return max(map(str, (docker.folder / "backups").glob("*.tar")))

    def restore(archive: str) -> str:
        return docker.ops("restore", f"FROM={archive}", BACKUPS_DIR=str(docker.folder / "backups")).stdout

    complete = backup()
    assert copied("tar") == {"prometheus", "alertmanager", "grafana"}
    docker.override = {"services": {"grafana": None}}
    assert "Leaving out grafana.tar: an override has removed this server" in restore(complete)
    assert copied("sh") == {"postgres", "prometheus", "alertmanager"}
    Path(complete).unlink()
    partial = backup()
    assert copied("tar") == {"prometheus", "alertmanager"}
    docker.override = {}
    said = restore(partial)
    assert "Restored: " in said
    assert "Keeping the data of grafana: the archive has none" in said
    assert copied("sh") == {"postgres", "prometheus", "alertmanager"}, "Grafana keeps what it has"


@pytest.mark.parametrize("off", [None, {"profiles": ["never"]}, {"deploy": {"replicas": 0}}, {"scale": 0}])
def test_a_server_that_an_override_turns_off_is_not_waited_for(docker: Docker, off: dict[str, Any] | None) -> None:
    docker.override = {"services": {"node-exporter": off}}
    result = docker.ops("up")
    assert result.returncode == 1
    assert result.stderr == (
        "An override turns node-exporter off, and Prometheus scrapes it; write [] into prometheus/targets/node.yml.\n"
    )
    assert docker.asked("up", "build") == []


def test_every_port_that_is_to_be_opened_is_looked_at_first(docker: Docker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        more = {"published": str(port), "target": 5678}
        ours = {"published": str(docker.ports["proxy"]), "target": 8000, "host_ip": "127.0.0.1"}
        services: dict[str, Any] = {"proxy": {"ports": [ours, more]}, "off": {"ports": [more], "profiles": ["off"]}}
        docker.override = {"services": services}
        result = docker.ops("up")
        assert result.returncode == 1
        assert result.stderr.startswith(f"Port {port} is taken by ")
        assert result.stderr.endswith(f"Free it, or change port {port} of proxy in your override.\n")
        docker.publisher = "container shop-web-1 of /srv/shop"
        assert f"Port {port} is taken by container shop-web-1 of /srv/shop. Free it" in docker.ops("up").stderr
        services["proxy"]["ports"] = [ours]
        assert docker.ops("down").returncode == 0
        assert "off" in docker.ops("up", COMPOSE_PROFILES="off").stderr
        assert docker.asked("up", "build") == []


def test_files_of_ours_that_containers_cannot_read_are_named(docker: Docker) -> None:
    closed = docker.folder / "secrets" / "prometheus"
    closed.mkdir(parents=True)
    (closed / "mine").touch(mode=0o600)
    docker.override = {"services": {"prometheus": {"volumes": [{"type": "bind", "source": str(closed)}]}}}
    result = docker.ops("up")
    assert result.returncode == 1
    assert result.stderr.startswith("The containers' users can't read ")
    assert "secrets/prometheus" in result.stderr


def test_a_changed_port_that_is_taken_stops_nothing(docker: Docker) -> None:
    docker.containers = [
        {"Service": name, "State": "running", "Status": "Up", "Publishers": [{"PublishedPort": port}]}
        for name, port in docker.ports.items()
    ]
    with socket.create_server(("127.0.0.1", docker.ports["proxy"])):  # as the engine's own proxy has it
        assert docker.ops("up").returncode == 0
    (docker.folder / "up").unlink()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        docker.override = {"services": {"proxy": {"ports": [{"published": str(port), "target": 8000}]}}}
        result = docker.ops("up", APP_PORT=str(port))
    assert result.returncode == 1
    assert result.stderr.startswith(f"Port {port} is taken by ")
    assert result.stderr.endswith("Free it, or set APP_PORT to another one (in .env or as a variable).\n")
    assert docker.asked("up", "build", "down") == []


def test_what_selinux_keeps_from_containers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels are given here: this machine's kernel may know none."""
    labels = {"rules": b"u:object_r:user_home_t:s0\0", "routes": b"system_u:object_r:container_file_t:s0\0"}
    monkeypatch.setattr(os, "getxattr", lambda place, _: labels[place.name], raising=False)
    enforce = tmp_path / "enforce"
    mounts.require_labels([tmp_path / "rules"], enforce)  # no SELinux at all
    enforce.write_text("0")
    mounts.require_labels([tmp_path / "rules"], enforce)  # permissive
    enforce.write_text("1")
    mounts.require_labels([tmp_path / "routes"], enforce)
    with pytest.raises(
        OpsError, match=r"SELinux lets no container read \S+/rules\. .* chcon -R -t container_file_t \S+/rules$"
    ):
        mounts.require_labels([tmp_path / "rules", tmp_path / "routes"], enforce)
