"""Docker mode without an engine: a `docker` on PATH that answers as Compose does, and notes what it is asked."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ops import configs, containers, mounts, settings
from ops.compose import PORTS, SERVICES
from ops.docker import ComposeStack
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.preflight import PUBLISHED, warn_of_unused_settings
from tests.servers import free_port

INHERITED = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # what `make test` leaves to what it runs
SERVERS = ("proxy", "prometheus", "alertmanager", "grafana", "postgres", "app")
SETTINGS = dict(zip(SERVERS, PUBLISHED[:4], strict=False))  # server -> setting of its port
METRICS = (
    "alertmanager_config_last_reload_successful 1\nprometheus_config_last_reload_successful 1\n"
    "alertmanager_config_last_reload_success_timestamp_seconds $NOW\n"
    "prometheus_config_last_reload_success_timestamp_seconds $NOW\n"
)
# What Compose and Docker say of the containers: from the time alone, as the one that crashes comes and goes by itself.
CONTAINERS = """
import json, os, sys, time
lines = [json.loads(line) for line in open("after" if os.path.exists("up") else "before")]
life = float(open("life").read())
restarts, age = divmod(time.time() - os.stat("up").st_mtime, life + 1) if os.path.exists("up") else (0, 0)
for line in lines:
    crashes = line["Service"] == "postgres" and life < 3600
    if crashes and age < 1:
        line["State"] = "restarting"
    started = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(time.time() - age))
    run = {"ID": line["ID"] + "-and-more", "restarts": int(restarts + 1) if crashes else 0, "started": started}
    print(json.dumps(line if sys.argv[1] == "ps" else run))
"""
TARGETS = json.dumps({"data": {"activeTargets": [{"labels": {"job": "app"}, "health": "up"}]}})


@dataclass
class Docker:
    """What the stand-in answers, and a stack's environment in which it is first on PATH."""

    folder: Path
    containers: list[dict[str, Any]] = field(default_factory=list)
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    publisher: str = ""
    """Who has published a port, as `docker ps` says it."""
    override: dict[str, Any] = field(default_factory=dict)
    health: str = "healthy"
    also: list[dict[str, Any]] = field(default_factory=list)
    """Further containers that are there after `up`."""
    life: float = 3600
    """Seconds for which the container of postgres runs until it crashes again; then it is restarted for a second."""

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        self.ports = {name: free_port() for name in SETTINGS}
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in INHERITED},
            **{SETTINGS[name]: str(port) for name, port in self.ports.items()},
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SIGHTLINE_STATE": str(self.folder / "state"),
            "SECRETS_DIR": str(self.folder / "secrets"),
            "COMPOSE_DISABLE_ENV_FILE": "1",
        }

    def write(self) -> None:
        services: dict[str, Any] = {name: {"volumes": []} for name in SERVICES}
        for name, port in self.ports.items():
            services[name]["ports"] = [{"host_ip": "127.0.0.1", "published": str(port), "target": PORTS[name]}]
        services |= self.override.get("services", {})
        services = {name: service for name, service in services.items() if service is not None}
        config = {"name": "mine", "secrets": {}, **self.override, "services": services}
        running = [
            {"Service": name, "State": "running", "Status": "Up", "Health": self.health, "Publishers": publishers(one)}
            for name, one in config["services"].items()
            if name in SERVERS
        ]
        running += self.also
        for container in (*running, *self.containers):
            container["ID"] = container["Service"]
        answers = {
            "config": config,
            "before": self.containers,
            "after": running,
            "asked": "",
        }
        for name, answer in answers.items():
            lines = answer if isinstance(answer, list) else [answer]
            (self.folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines if line != ""))
        (self.folder / "life").write_text(str(self.life))
        (self.folder / "containers.py").write_text(CONTAINERS)
        script = self.folder / "bin" / "docker"
        script.write_text(
            f"""#!/bin/sh
cd {self.folder}
echo "$*" >> asked
case "$*" in
    *" config "*) cat config;;
    *" ps --all --format=json") {sys.executable} -IS containers.py ps;;
    inspect*) {sys.executable} -IS containers.py inspect;;
    "ps --all"*) echo '{self.working_dir}';;
    "ps --filter publish="*) printf '%s' '{self.publisher}';;
    *--entrypoint=tar*) tar -C {self.folder} -cf - asked;;
    "volume ls"*) printf '%s\\n' {" ".join(self.volumes)};;
    *"compose up"*) touch up;;
    *" down "*) rm -f up;;
    *"/api/v1/targets"*) echo '{TARGETS}';;
    *"/metrics"*) NOW=$(date +%s%N); echo "{METRICS}";;
esac
"""
        )
        script.chmod(0o755)

    def ops(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        self.write()
        return subprocess.run(
            [sys.executable, "-m", "ops", *words],
            cwd=PROJECT, env={**self.environment, **changes}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def make(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        self.write()
        environment = {**self.environment, **changes}
        return subprocess.run(["make", *words], cwd=PROJECT, env=environment, capture_output=True, text=True)

    def asked(self, *words: str) -> list[str]:
        """The calls that contain one of these words."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if any(word in line.split() for word in words)]


def publishers(service: dict[str, Any]) -> list[dict[str, Any]]:
    """What Compose says of the ports of a container that runs; the engine has chosen those that leave it a choice."""
    return [
        {
            "URL": port.get("host_ip", "0.0.0.0"),
            "TargetPort": port["target"],
            "PublishedPort": int(port.get("published", "49153").split("-")[-1]),
        }
        for port in service.get("ports") or ()
    ]


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


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


@pytest.mark.parametrize(
    "command",
    [
        *("up", "down", "clean CONFIRM=1", "status", "logs", "psql", "reload", "restart", "backup", "grafana-password"),
        *("restore CONFIRM=1", "loadtest", "incident NAME=errors"),
    ],
)
def test_the_stack_of_another_checkout_is_left_alone(docker: Docker, command: str) -> None:
    """Neither stopped nor read nor given other passwords: what a command shows or changes is this checkout's."""
    docker.working_dir = "/"
    docker.volumes = ("mine_postgres-data",)
    docker.containers = [{"Service": name, "State": "running", "Status": "Up", "Health": "healthy"} for name in SERVERS]
    mark = docker.folder / "state" / "in-docker"  # it has had a stack of its own, too
    mark.parent.mkdir()
    mark.touch()
    result = docker.ops(*command.split())
    assert result.returncode == 1
    assert result.stderr == (
        "Docker has a stack mine from /. COMPOSE_PROJECT_NAME=... in .env, and other ports, "
        "give this checkout a stack of its own.\n"
    )
    assert docker.asked("up", "down", "build", "exec", "run", "logs") == []


def test_a_folder_that_was_moved_keeps_its_stack(docker: Docker) -> None:
    """The mark in it came along, and the place that Docker names is empty."""
    docker.working_dir = str(docker.folder / "old place")
    assert "Docker has a stack mine from " in docker.ops("down").stderr
    (docker.folder / "state").mkdir()
    (docker.folder / "state" / "in-docker").touch()
    assert docker.ops("down").returncode == 0
    (docker.folder / "old place").mkdir()
    assert "Docker has a stack mine from " in docker.ops("down").stderr


def test_files_of_another_project_are_not_started(docker: Docker) -> None:
    """COMPOSE_FILE, as an exported variable leaves it over."""
    docker.override = {"services": {**dict.fromkeys(SERVICES), "web": {}}}
    result = docker.ops("up", COMPOSE_FILE="/elsewhere/compose.yml")
    assert result.returncode == 1
    assert result.stderr == (
        "COMPOSE_FILE is '/elsewhere/compose.yml'; it must begin with this project's docker-compose.yml.\n"
    )
    assert docker.asked("up", "build") == []


def test_data_whose_passwords_are_elsewhere_are_left_alone(docker: Docker) -> None:
    docker.volumes = ("mine_postgres-data",)
    result = docker.ops("up")
    assert result.returncode == 1
    assert result.stderr.startswith("Docker has data of a stack mine (mine_postgres-data), but their passwords are not")
    assert not (docker.folder / "secrets").exists()
    assert docker.asked("up", "build") == []


def test_data_of_a_name_that_was_never_started_here_are_left_alone(docker: Docker) -> None:
    """The other checkout's stack is down, and this one has passwords of its own: of a stack with another name."""
    assert docker.ops("up").returncode == 0
    mark = docker.folder / "state" / "in-docker"
    assert mark.read_text() == "mine\n"
    (docker.folder / "up").unlink()
    docker.volumes = ("mine_postgres-data",)
    mark.write_text("second\n")
    refused = docker.ops("up")
    assert refused.returncode == 1
    assert (
        "Docker has data of a stack mine (mine_postgres-data), and this checkout has only started second."
        in refused.stderr
    )
    for names in ("", "second\nmine\n"):  # of a release before, or both
        mark.write_text(names)
        assert docker.ops("up").returncode == 0
        (docker.folder / "up").unlink()


def test_a_server_that_others_wait_for_in_vain_is_heard(docker: Docker) -> None:
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


def test_clean_says_what_goes_and_whose_it_is(docker: Docker) -> None:
    docker.volumes = ("mine_postgres-data", "mine_grafana-data")
    refused = docker.ops("clean")
    assert refused.returncode == 1
    whose = f"mine_postgres-data, mine_grafana-data (project mine of {PROJECT}"
    assert f"{whose}, which has not started it so far)?" in refused.stdout
    assert docker.asked("down") == []
    removed = docker.ops("clean", "CONFIRM=1")
    assert (removed.returncode, removed.stdout.splitlines()[-1]) == (0, "Removed.")
    assert "stay" not in removed.stdout
    assert any("--volumes" in line for line in docker.asked("down"))
    assert "volume rm mine_postgres-data mine_grafana-data" in docker.asked("rm"), "what `down` has left"


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


def test_without_docker_on_path_no_second_stack_is_started(docker: Docker) -> None:
    """As in a cron job, whose PATH is short."""
    assert docker.ops("up").returncode == 0
    tools = docker.folder / "tools"
    tools.mkdir()
    for tool in ("make", "bash", "env"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    for command in ("backup", "up", "status"):
        result = docker.ops(command, PATH=str(tools))
        assert (result.returncode, result.stderr) == (
            1,
            "There is no `docker` on PATH: install Docker Engine with Compose, or use MODE=native.\n",
        )
    assert docker.ops("clean", "CONFIRM=1").returncode == 0
    assert not (docker.folder / "state" / "in-docker").exists()


def test_parameters_count_on_the_command_line_only(docker: Docker) -> None:
    inherited = {"MODE": "dokcer", "NAME": "my-laptop", "HOST": "x86_64-conda-linux-gnu", "SERVICE": "nobody"}
    assert docker.make("up", **inherited).returncode == 0
    assert docker.make("logs", **inherited).returncode == 0
    assert docker.asked("logs")[0].endswith("--tail=all")
    assert docker.make("logs", "SERVICE=app", **inherited).returncode == 0
    assert docker.asked("logs")[0].endswith("--tail=all app")
    wrong = docker.make("status", "MODE=dokcer")
    assert wrong.stderr.splitlines()[0] == "MODE is 'dokcer'; it must be docker or native."
    wrong = docker.make("up", "FAULTS_ENABLE=true")
    assert wrong.stderr.splitlines()[0] == "FAULTS_ENABLE is not a setting; do you mean FAULTS_ENABLED?"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("logs SERVISE=app", "SERVISE is not a setting; do you mean SERVICE?"),
        ("restore FORM=backups/x.tar", "FORM is not a setting; do you mean FROM?"),
        ("up app_port=8001", "app_port is not a setting; do you mean APP_PORT?"),
        ("up PORT=8001", "`make up` has no parameter PORT."),
        ("backup FROM=backups/x.tar", "`make backup` has no parameter FROM."),
        ("up FOO=bar", "FOO is not a setting, and has no effect here."),
        ("status loadtest USERS=many", "loadtest: USERS=many: not a number"),
    ],
)
def test_a_parameter_without_effect_is_an_error_with_the_nearest_name(docker: Docker, words: str, says: str) -> None:
    docker.containers = [{"Service": "app", "State": "running", "Status": "Up", "Health": "healthy"}]
    wrong = docker.make(*words.split())
    assert wrong.returncode == 2
    assert says in wrong.stderr.splitlines()
    assert docker.asked("up", "build", "restore") == []


def test_parameters_of_a_make_that_calls_this_one_are_ignored(docker: Docker, tmp_path: Path) -> None:
    """Make hands what stands on its command line on to all that it calls."""
    outer = tmp_path / "Makefile"
    outer.write_text(f"deploy:\n\t@$(MAKE) --no-print-directory -C {PROJECT} up APP_WORKERS=1\n")
    result = docker.make("-f", str(outer), "deploy", "VERSION=3", "NAME=web", "FAULTS_ENABLE=true")
    assert result.returncode == 0, result.stderr
    assert sorted(result.stderr.splitlines()) == [
        "FAULTS_ENABLE is not a setting; do you mean FAULTS_ENABLED? Ignored, as another make calls this one.",
        "VERSION is not a setting, and has no effect here. Ignored, as another make calls this one.",
        "`make up` has no parameter NAME. Ignored, as another make calls this one.",
    ]


@pytest.mark.parametrize(
    "left_over",
    [
        {"PYTHONHOME": "/nonexistent", "PYTHONPATH": "$SHADOWS", "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error"},
        {"PYTHONINSPECT": "1", "PYTHONOPTIMIZE": "2", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        {"VIRTUAL_ENV": "/nonexistent", "CONDA_PREFIX": "/nonexistent", "BIN": "/nonexistent", "GIVEN": "down"},
        {"LC_ALL": "C", "LANG": "de_DE.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONIOENCODING": "ascii", "CDPATH": "/tmp"},
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "SHELL": "/bin/false", "MAKEFILES": "/nonexistent.mk"},
        {"APP_PORT": "tcp://10.0.0.1:80", "USERS": "many", "FROM": "x", "OUT": "x", "CONFIRM": "1"},
    ],
)  # fmt: skip
def test_what_an_environment_has_left_over_keeps_nothing_from_starting(
    docker: Docker, left_over: dict[str, str], tmp_path: Path
) -> None:
    shadows = tmp_path / "shadows"  # as of another project's tools
    shadows.mkdir()
    for module in ("logging", "yaml", "psutil"):
        (shadows / f"{module}.py").write_text("raise ImportError\n")
    result = docker.make("up", **{name: value.replace("$SHADOWS", str(shadows)) for name, value in left_over.items()})
    assert result.returncode == 0, result.stderr
    assert "Everything is healthy." in result.stdout


def test_a_store_for_years_adds_its_file_and_profile_to_those_of_the_user(tmp_path: Path) -> None:
    def made(**given: str) -> dict[str, str]:
        given = {"LONGTERM_RETENTION": "5y", "SIGHTLINE_STATE": str(tmp_path), **given}
        return ComposeStack(settings.load(given, tmp_path / "no .env")).environment

    added = made()
    assert added["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.remote-write.yml"
    assert (added["COMPOSE_PROFILES"], added["GRAFANA_PROVISIONING"]) == ("longterm", "longterm")
    assert added["REMOTE_WRITE_CONFIG"] == str(tmp_path / "remote-write" / "prometheus.yml")
    assert "REMOTE_WRITE_NETWORK" not in added, "it need not leave the stack's networks"
    theirs = made(COMPOSE_FILE="a.yml:b.yml", COMPOSE_PROFILES="mine")
    assert theirs["COMPOSE_FILE"] == "a.yml:b.yml:docker-compose.remote-write.yml"
    assert theirs["COMPOSE_PROFILES"] == "mine,longterm"
    elsewhere = made(LONGTERM_RETENTION="", REMOTE_WRITE_URL="https://metrics.example/api/v1/write")
    assert elsewhere["REMOTE_WRITE_NETWORK"] == "outside"
    assert "COMPOSE_PROFILES" not in elsewhere
    assert "COMPOSE_FILE" not in made(LONGTERM_RETENTION="")


def test_a_store_of_the_first_prometheus_alone_is_said_to_be(docker: Docker) -> None:
    """docker-compose.remote-write.yml gives its section to no second one: stores would get everything twice."""
    docker.override = {"services": {"prometheus-2": {}}}
    sentence = "The first Prometheus alone sends samples to the store"
    assert sentence in docker.ops("up", LONGTERM_RETENTION="5y").stdout
    assert sentence not in docker.ops("up").stdout


def test_what_prometheus_reads_is_written_before_it_starts_and_with_each_reload(docker: Docker) -> None:
    written = docker.folder / "state" / "remote-write" / "prometheus.yml"
    assert docker.ops("up").returncode == 0
    assert not written.exists()
    assert docker.ops("up", LONGTERM_RETENTION="5y").returncode == 0
    assert '"url": "http://victoriametrics:8428/api/v1/write"' in written.read_text()
    before = written.stat().st_ino
    written.write_text("old")
    assert docker.ops("reload", LONGTERM_RETENTION="5y").returncode == 0
    assert "remote_write" in written.read_text()
    assert written.stat().st_ino == before


def test_settings_that_no_container_is_given_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Natively the service reads them; in Docker docker-compose.yml decides what it is given."""
    names = ("APP_WORKERS", "OPENAI_API_KEY", "DATABASE_HOST", "LOG_FORMAT", "APP_MAX_CONNECTIONS", "APP_PORT")
    (tmp_path / ".env").write_text("".join(f"{name}=1234\n" for name in names))
    stack = ComposeStack(settings.load({"SIGHTLINE_STATE": str(tmp_path / "state")}, tmp_path / ".env"))
    environment = {"DATABASE_HOST": "postgres", "APP_MAX_CONNECTIONS": "1234"}  # the second one by an override
    monkeypatch.setitem(stack.__dict__, "config", {"services": {"app": {"environment": environment}}})
    with caplog.at_level(logging.WARNING, "sightline.ops"):
        warn_of_unused_settings(stack)
    place = "set it under `environment` of `app` in docker-compose.override.yml."
    assert [record.message for record in caplog.records if record.name == "sightline.ops"] == [
        f".env: DATABASE_HOST has no effect in Docker; {place}",
        f".env: LOG_FORMAT has no effect in Docker; {place}",
        ".env: OPENAI_API_KEY has no effect in Docker; OPENAI_API_KEY_FILE names a file with it.",
    ]


def test_a_changed_key_makes_another_container(tmp_path: Path) -> None:
    """The service reads it at its start only; `up` compares variables, not files."""
    key = tmp_path / "key"
    key.write_text("first")

    def digest(**given: str) -> str:
        given = {"SIGHTLINE_STATE": str(tmp_path / "state"), **given}
        return ComposeStack(settings.load(given, tmp_path / "no .env")).environment["API_KEYS_DIGEST"]

    assert digest() == ""
    before = digest(OPENAI_API_KEY_FILE=str(key))
    assert before == digest(OPENAI_API_KEY_FILE=str(key)) != ""
    key.write_text("another")
    os.utime(key, (1, 1))
    assert digest(OPENAI_API_KEY_FILE=str(key)) not in ("", before)
    assert "${API_KEYS_DIGEST:-}" in (PROJECT / "docker-compose.yml").read_text()


@pytest.mark.parametrize("flags", ["-j4", "-j -k", "-B --output-sync=target"])
def test_targets_are_made_in_their_order_whatever_make_is_told(docker: Docker, flags: str) -> None:
    result = docker.make("down", "up", MAKEFLAGS=flags)
    assert result.returncode == 0, result.stderr
    calls = [line for line in (docker.folder / "asked").read_text().splitlines() if " down " in line or " up " in line]
    assert ["down" in calls[0].split(), "up" in calls[-1].split()] == [True, True], calls
    assert "Everything is healthy." in result.stdout.splitlines()


def test_files_that_are_read_at_the_start_only_make_other_containers(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose does not look into what it mounts."""
    written = {"EXPORTER_OPTIONS_DIGEST": "postgres-exporter", "GRAFANA_PROVISIONING_DIGEST": "grafana"}
    docker.write()
    script = docker.folder / "bin" / "docker"
    script.write_text(script.read_text().replace('echo "$*"', f'echo "$* {" ".join(f"${one}" for one in written)}"', 1))
    command = [sys.executable, "-m", "ops", "down"]
    subprocess.run(command, cwd=PROJECT, env=docker.environment, check=True, capture_output=True)
    assert docker.asked("down")[0].split()[-2:] == [configs.read_at_start(server) for server in written.values()]
    assert all(f"${{{name}:-}}" in (PROJECT / "docker-compose.yml").read_text() for name in written)

    for places in configs.AT_START.values():
        for place in places:
            (tmp_path / "copy" / place).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (PROJECT / place).is_dir() else shutil.copy)(PROJECT / place, tmp_path / "copy" / place)
    monkeypatch.setattr(configs, "PROJECT", tmp_path / "copy")
    seen = [configs.read_at_start(*configs.AT_START)]
    for change in (
        "grafana/provisioning/datasources/sightline.yml",
        "app/llm/prices.toml",
        "postgres/init/99-mine.sql",
    ):
        with (tmp_path / "copy" / change).open("a") as file:
            file.write("# mine\n")
        seen.append(configs.read_at_start(*configs.AT_START))
    assert len({*seen}) == 4
    (tmp_path / "copy" / "app" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "copy" / "app" / "__pycache__" / "main.cpython-311.pyc").touch()
    assert configs.read_at_start(*configs.AT_START) == seen[-1], "Python's own files are no change"


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
