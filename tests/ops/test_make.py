"""What make hands on to the commands, whatever the environment and another make have left over (see fake_docker.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.paths import PROJECT
from tests.ops.fake_docker import Docker


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
def test_leftover_environment_variables_do_not_prevent_a_start(
    docker: Docker, left_over: dict[str, str], tmp_path: Path
) -> None:
    shadows = tmp_path / "shadows"  # as of another project's tools
    shadows.mkdir()
    for module in ("logging", "yaml", "psutil"):
        (shadows / f"{module}.py").write_text("raise ImportError\n")
    result = docker.make("up", **{name: value.replace("$SHADOWS", str(shadows)) for name, value in left_over.items()})
    assert result.returncode == 0, result.stderr
    assert "Everything is healthy." in result.stdout


@pytest.mark.parametrize("flags", ["-j4", "-j -k", "-B --output-sync=target"])
def test_targets_run_in_order_also_with_make_j(docker: Docker, flags: str) -> None:
    result = docker.make("down", "up", MAKEFLAGS=flags)
    assert result.returncode == 0, result.stderr
    calls = [line for line in (docker.folder / "asked").read_text().splitlines() if " down " in line or " up " in line]
    assert ["down" in calls[0].split(), "up" in calls[-1].split()] == [True, True], calls
    assert "Everything is healthy." in result.stdout.splitlines()
