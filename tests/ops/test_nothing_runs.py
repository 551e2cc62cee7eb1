"""Before anything runs: what cannot start is said at once, in a line each, and nothing is left behind."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ops import settings
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.processes import ProcessStack
from ops.servers import Server
from tests.ops.native import Stack, native_stack
from tests.running import folder


def test_taken_ports_are_all_named_before_anything_starts(made: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        taken, also_taken = one.getsockname()[1], other.getsockname()[1]
        result = made.run("up", PROMETHEUS_PORT=str(taken), POSTGRES_PORT=str(also_taken))
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    for port, setting in ((taken, "PROMETHEUS_PORT"), (also_taken, "POSTGRES_PORT")):
        (line,) = (line for line in lines if f"Port {port} " in line)
        assert setting in line
        assert f"(process {os.getpid()})" in line
    assert made.processes() == []
    assert not (made.state / "data").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("APP_PORT", "eighty", "APP_PORT is 'eighty'; it must be a port number from 1 to 65535."),
        ("GRAFANA_PORT", "70000", "GRAFANA_PORT is '70000'; it must be a port number from 1 to 65535."),
        ("OPENAI_API_KEY", 'a"b', "OPENAI_API_KEY contains a quotation mark"),
        ("SIGHTLINE_STATE", "/tmp/" + "x" * 100, "is too long for a Unix socket"),
        ("SECRETS_DIR", "/dev/null", "SECRETS_DIR is '/dev/null', which is not a folder."),
    ],
)
def test_wrong_settings_are_reported_in_one_line(made: Stack, name: str, value: str, says: str) -> None:
    result = made.run("up", **{name: value})
    assert result.returncode == 1
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert made.processes() == []


def test_one_port_for_two_servers_is_refused(made: Stack) -> None:
    result = made.run("up", APP_PORT=str(made.port("prometheus")))
    assert result.returncode == 1
    assert re.fullmatch(r"APP_PORT and PROMETHEUS_PORT are both \d+; give each a port of its own\.\n", result.stderr)


def test_what_an_archive_lacks_is_kept_and_copies_of_the_users_are_not_removed(made: Stack) -> None:
    with folder("state") as state:
        stack = ProcessStack(settings.load({**made.environment, "SIGHTLINE_STATE": str(state)}))
        (state / "data" / "grafana").mkdir(parents=True)
        (state / "data" / "grafana" / "grafana.db").write_text("dashboards")
        (state / "longterm.2026").mkdir()
        (state / "logs.tar.gz").touch()
        stack.keep("grafana")
        stack.keep("alertmanager")  # which has none
        stack.replace()
        assert (state / "data" / "grafana" / "grafana.db").read_text() == "dashboards"
        stack.remove()
        assert {entry.name for entry in state.iterdir()} == {"longterm.2026", "logs.tar.gz"}


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("printf 'a warning\\nCannot start: ONE: no\\nTWO: no\\n' >&2; exit 1", "ONE: no\nTWO: no"),
        ("echo 'a warning' >&2; echo 'OSError: no' >&2; exit 1", "ended with exit code 1: OSError: no"),
        ("kill -KILL $$", "ended with exit code -9: without output"),
        ("exec sleep 600", "The service has not checked its settings within 0.5 s."),
    ],
)
def test_a_service_that_cannot_check_its_settings_reports_why(
    monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    with folder("state") as state:
        stack = ProcessStack(settings.load({"SIGHTLINE_STATE": str(state), "COMPOSE_DISABLE_ENV_FILE": "1"}))
        monkeypatch.setattr(stack, "server", lambda name: Server(name, 1, ("sh", "-c", script), lambda: None))
        if "sleep" in script:
            monkeypatch.setattr("ops.processes.CHECK_TIMEOUT", 0.5)
        with pytest.raises(OpsError, match=f"{re.escape(says)}$"):
            stack._check_service()


def test_a_command_that_begins_again_in_the_virtual_environment_warns_once(made: Stack) -> None:
    file = made.project / ".env"
    file.write_text("SOMETHING=1\n")
    environment = {**made.environment, "COMPOSE_DISABLE_ENV_FILE": ""}
    command = ["python3", "-m", "ops", "check-config", "MODE=native"]
    result = subprocess.run(command, env=environment, cwd=made.project, capture_output=True, text=True)
    file.unlink()
    assert result.returncode == 0
    assert result.stderr.count("SOMETHING is not a setting") == 1


def test_files_are_checked_without_the_receivers_secrets(made: Stack) -> None:
    """A receiver that is switched on fails no `make lint` of a machine that sends nothing, such as CI's."""
    file = made.project / "alertmanager" / "alertmanager.yml"
    text = file.read_text()
    file.write_text(text.replace('receiver: "null"       # or: slack', "receiver: slack  #"))
    assert file.read_text() != text
    commands = {name: ["python3", "-m", "ops", name, "MODE=native"] for name in ("check-files", "check-config")}
    environment = {**made.environment, "COMPOSE_DISABLE_ENV_FILE": "1"}
    results = {
        name: subprocess.run(command, env=environment, cwd=made.project, capture_output=True, text=True)
        for name, command in commands.items()
    }
    file.write_text(text)
    assert results["check-files"].returncode == 0, results["check-files"].stderr
    assert results["check-config"].returncode == 1
    assert "receivers whose secrets are missing or empty: " in results["check-config"].stderr
    assert "ops check-files" in (PROJECT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]


def test_status_logs_and_down_of_nothing(made: Stack) -> None:
    assert made.run("status").stderr == "Nothing runs; `make up` starts it.\n"
    assert made.run("status").returncode == 1
    assert made.run("logs").returncode == 1
    assert made.run("reload").stderr == "Nothing runs; `make up` starts it.\n"
    with pytest.raises(OpsError, match=r"^prometheus does not answer; `make logs SERVICE=prometheus` shows why"):
        made.stack.ask("prometheus", "/metrics")
    assert made.run("psql").stderr == "PostgreSQL does not run; `make up` starts it.\n"
    assert made.run("psql").returncode == 1
    assert made.run("down").stdout == "Nothing is running.\n"
    assert made.run("down").returncode == 0


def test_the_service_uses_the_stacks_database_whatever_env_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text("DATABASE_HOST=db\nDATABASE_PASSWORD=other\nLOG_FORMAT=json\nAPP_HOST=0.0.0.0\n")
    with native_stack() as other:
        stack = ProcessStack(settings.load({"SIGHTLINE_STATE": str(other.state)}, tmp_path / ".env"))
        with caplog.at_level(logging.WARNING, "sightline.ops"):
            stack.warn_of_unused_settings()
        given = stack._app_environment()
    assert [record.message for record in caplog.records if record.name == "sightline.ops"] == [
        f".env: {name} has no effect in native mode; the stack sets it itself."
        for name in ("APP_HOST", "DATABASE_HOST", "DATABASE_PASSWORD")
    ]
    assert (given["LOG_FORMAT"], given["DATABASE_HOST"], given["DATABASE_PASSWORD"]) == ("json", "127.0.0.1", "")


STACK_COMMANDS = (
    "up", "down", "status", "logs", "psql", "check-config", "reload", "clean CONFIRM=1", "backup",
    "grafana-password", "loadtest",
)  # fmt: skip


@pytest.mark.parametrize("command", STACK_COMMANDS)
def test_docker_mode_without_docker_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "SECRETS_DIR": str(tmp_path / "secrets")}
    result = subprocess.run(
        [sys.executable, "-m", "ops", *command.split(), "MODE=docker"],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.removeprefix("loadtest: ") == (
        "There is no `docker` on PATH: install Docker Engine with Compose, or use MODE=native.\n"
    )
