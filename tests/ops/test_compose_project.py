"""Whose stack it is: what another checkout has started, or another name, is left alone (see fake_docker.py)."""

from __future__ import annotations

import shutil

import pytest

from ops.compose import SERVICES
from ops.paths import PROJECT
from tests.ops.fake_docker import SERVERS, Docker


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
