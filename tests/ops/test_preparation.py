"""What Docker mode does before it needs an engine: settings, secrets, what is mounted. None is needed here, either."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from dotenv import dotenv_values

from ops import dotenv, images, mounts, settings
from ops.__main__ import COMMANDS
from ops.errors import OpsError
from ops.paths import PROJECT
from tests.running import wait_until

MAKES_OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MODE", "HOST")  # what `make test` leaves to what it runs
EXAMPLE = (PROJECT / ".env.example").read_text()


def test_every_setting_of_the_example_is_the_default_once_its_comment_mark_is_gone() -> None:
    uncommented = re.sub(r"^# (?=[A-Z_]+=)", "", EXAMPLE, flags=re.MULTILINE)
    made = dotenv_values(stream=io.StringIO(uncommented))
    assert made
    assert not [value for value in made.values() if value is None or re.search(r"[#\s]", value)]
    assert dotenv.parse(uncommented, {}) == made
    defaults = settings.DEFAULTS
    for name in defaults.keys() & made.keys():
        if name.endswith("_DIR"):
            assert str(PROJECT / (made[name] or "")) == defaults[name]
        else:
            assert made[name] == defaults[name]


@pytest.mark.parametrize(
    "line",
    [
        "SECRETS_DIR=./secrets",
        "SECRETS_DIR=./secrets   # the passwords, one file each",
        "SECRETS_DIR=./secrets#1",
        "SECRETS_DIR='my secrets' # of 'mine'",
        'SECRETS_DIR="my # secrets"',
        "SECRETS_DIR= ./secrets ",
        " SECRETS_DIR =./secrets",
        "\texport SECRETS_DIR = './my secrets'",
        "SECRETS_DIR=",
        "export SECRETS_DIR=./secrets",
        "SECRETS_DIR=first\nSECRETS_DIR=second",
        "# SECRETS_DIR=./secrets",
        "MY_SECRETS_DIR=./secrets",
    ],
)
def test_lines_of_env_are_read_as_others_read_them(line: str) -> None:
    text = f"APP_PORT=8000\n{line}\nLOG_LEVEL=info\n"
    assert dotenv.parse(text, {"HOME": "/home/me"}) == dotenv_values(stream=io.StringIO(text))


def test_what_the_containers_users_cannot_read_is_named(tmp_path: Path) -> None:
    """As after a checkout under umask 077."""
    rules = tmp_path / "prometheus" / "rules"
    rules.mkdir(parents=True)
    rule = rules / "http.yml"
    rule.touch()
    key = tmp_path / "api key"
    key.touch()
    editors = tmp_path / "prometheus" / ".editor" / "copies"
    editors.mkdir(parents=True)
    (editors / "http.yml").touch(0o600)
    editors.chmod(0o700)
    places = [tmp_path / "prometheus", key, Path("/dev/null")]
    for folder in (rules, rules.parent):
        folder.chmod(0o755)
    for file in (rule, key):
        file.chmod(0o644)
    mounts.require_readable(places)
    for place, mode, named in ((rule, 0o640, rules.parent), (rules, 0o754, rules.parent), (key, 0o600, key)):
        before = place.stat().st_mode
        place.chmod(mode)
        with pytest.raises(OpsError) as refused:
            mounts.require_readable(places)
        repair = str(refused.value).partition(": ")[2]
        assert repair.startswith("chmod -R go+rX ")
        assert str(refused.value).count(named.name) == 2
        subprocess.run(["bash", "-ec", repair], check=True, cwd=PROJECT)
        mounts.require_readable(places)
        place.chmod(before)


def test_errors_of_the_machine_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("a file where a folder should be")
    result = subprocess.run(
        [sys.executable, "-m", "ops", "secrets"],
        cwd=PROJECT,
        env={**os.environ, "SECRETS_DIR": str(tmp_path / "secrets")},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (
        1,
        f"SECRETS_DIR is '{tmp_path / 'secrets'}', which is not a folder.\n",
    )


@pytest.mark.parametrize(
    ("streams", "code", "says"),
    [
        ("<&- >&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("| true", 0, ""),
        ("2>&1 | true", 0, ""),
        ("> /dev/full", 1, "The output could not be written: No space left on device\n"),
        ("> /dev/full 2>&1", 1, ""),
    ],
)
def test_work_is_done_even_if_output_is_closed(tmp_path: Path, streams: str, code: int, says: str) -> None:
    """Closed (by some schedulers), read by a program that ends (`| head`), on a full disk."""
    command = f'set -o pipefail; "{sys.executable}" -m ops secrets {streams}'
    for name in ("first", "second"):  # it also logs a warning, on standard error
        environment = {**os.environ, "SECRETS_DIR": str(tmp_path / name), "APP_PORT": "tcp://192.0.2.1:80"}
        result = subprocess.run(["bash", "-c", command], cwd=PROJECT, env=environment, capture_output=True, text=True)
        assert result.returncode == code
        assert re.sub(r".*set by Kubernetes.*\n", "", result.stderr) == says
        assert {each.stat().st_size for each in (tmp_path / name).glob("*_password")} == {32}


def test_output_waits_for_who_reads_late_from_a_pipe_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    size = 2 * fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
    program = f"from ops.console import configure, log; configure(); log.info('x' * {size})"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=PROJECT, stdout=writing) as run, open(reading, "rb") as output:
        os.close(writing)
        unread = bytearray(4)

        def waits() -> bool:  # what tries again at once is running
            fcntl.ioctl(output, termios.FIONREAD, unread)
            return int.from_bytes(unread, sys.byteorder) > size // 4 and psutil.Process(run.pid).status() == "sleeping"

        wait_until(waits)
        assert output.read() == b"x" * size + b"\n"
    assert run.returncode == 0


def test_questions_to_a_closed_standard_input_are_answered_with_no(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m ops clean MODE=native <&-'
    with tempfile.TemporaryDirectory(dir="/tmp") as state:  # the name of a socket in it must be short
        environment = {**os.environ, "SIGHTLINE_STATE": state}
        result = subprocess.run(["bash", "-c", command], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "Nothing was changed. CONFIRM=1 answers yes.\n")


def test_makefile_of_another_folder_says_where_to_run_it(tmp_path: Path) -> None:
    command = ["make", "-f", str(PROJECT / "Makefile"), "status"]
    result = subprocess.run(command, cwd=tmp_path, env=with_first_on_path(tmp_path), capture_output=True, text=True)
    assert result.returncode == 2
    assert "Run make in the folder of this Makefile, or with `make -C FOLDER`" in result.stderr


def test_pull_asks_again_for_what_the_engine_has(tmp_path: Path) -> None:
    upstream = images.upstream()
    absent = upstream.pop("locust")
    (tmp_path / "docker").write_text(
        "#!/bin/sh\n"
        f"[ \"$*\" != 'image inspect {absent}' ] || exit 1\n"
        """[ "$1" != image ] || echo '[{"Config": {}}]'\n"""
        f'[ "$1" != pull ] || echo "$3" >> {tmp_path / "pulled"}\n'
        f'[ "$1 $3" != "pull $REFUSED" ] || {{ echo \'no registry\' >&2; exit 1; }}\n'
    )
    (tmp_path / "docker").chmod(0o755)

    def pull(**changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**with_first_on_path(tmp_path), **changes}
        command = [sys.executable, "-m", "ops", "pull"]
        return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)

    assert pull().returncode == 0
    assert set((tmp_path / "pulled").read_text().split()) == set(upstream.values())
    refused = pull(REFUSED=upstream["grafana"])
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"`docker pull --quiet {upstream['grafana']}` failed:\nno registry\n")


@pytest.fixture
def load_test(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the load test against a `docker` that says the stack is up, and notes what it is asked in `asked`.

    Its Locust has these ports in the configuration; with `stops`, Ctrl-C comes while the container starts.
    """
    service = {"Service": "app", "Name": "mine-app-1", "Health": "healthy", "State": "running"}
    open_page = {"URL": "127.0.0.1", "TargetPort": 8089, "PublishedPort": 8090}
    locust = {"Service": "locust", "Name": "mine-loadtest", "State": "running", "Publishers": [open_page]}
    (tmp_path / "docker").write_text(
        f"""#!/bin/sh
echo "$*" >> {tmp_path}/asked
case "$*" in
    *" ps "*) echo '{json.dumps(service)}'; [ ! -e {tmp_path}/started ] || echo '{json.dumps(locust)}';;
    *" config "*) echo '{{"name": "mine", "services": {{"locust": {{"ports": '"$PUBLISHED"'}}}}}}';;
    image*) echo '[{{"Config": {{}}}}]';;
    *" run "*) touch {tmp_path}/started; [ -z "$STOPS" ] || {{ kill -INT $PPID; exec sleep 60; }};;
    wait*) echo 0;;
    "rm --force "*) echo 'No such container' >&2; exit 1;;
esac
"""
    )
    (tmp_path / "docker").chmod(0o755)

    def run(command: str, *ports: dict[str, object], stops: str = "") -> subprocess.CompletedProcess[str]:
        given = {"PUBLISHED": json.dumps(ports), "STOPS": stops}
        return subprocess.run(
            ["env", "--default-signal=INT", sys.executable, "-m", "ops", command, "MODE=docker"],
            cwd=PROJECT,
            env={**with_first_on_path(tmp_path), **given},
            capture_output=True,
            text=True,
        )

    return run


def test_ctrl_c_while_the_load_test_starts_leaves_no_container(
    load_test: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    stopped = load_test("loadtest", {"published": "8089", "target": 8089}, stops="1")
    assert (stopped.returncode, stopped.stderr) == (1, "loadtest: interrupted before the test started\n")
    *_, start, end = (tmp_path / "asked").read_text().splitlines()
    assert " run --detach --name=mine-loadtest " in start
    assert end == "rm --force mine-loadtest"


def test_locusts_page_is_where_the_engine_has_put_it(
    load_test: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Overrides may give it a range of ports, or none: only the page needs one."""
    page = load_test("loadtest-ui", {"published": "8089-8090", "target": 8089})
    assert page.returncode == 0, page.stderr
    assert "Locust's web page: http://localhost:8090 (Ctrl-C stops it)\n" in page.stdout
    (tmp_path / "started").unlink()
    refused = load_test("loadtest-ui")
    complaint = "loadtest: Locust's web page has no port: your override removes `ports` of locust.\n"
    assert (refused.returncode, refused.stderr) == (1, complaint)
    assert load_test("loadtest").returncode == 0


def test_logs_are_complete_where_they_go_on_to_another_program(tmp_path: Path) -> None:
    config = '{"name": "mine", "services": {}}'
    script = f"""#!/bin/sh\ncase "$*" in *" config "*) echo '{config}';; *) echo "$*" > {tmp_path}/asked;; esac\n"""
    (tmp_path / "docker").write_text(script)
    (tmp_path / "docker").chmod(0o755)
    mine, terminal = os.openpty()
    for output, lines in ((subprocess.DEVNULL, "all"), (terminal, "100")):
        command = [sys.executable, "-m", "ops", "logs", "SERVICE=app", "MODE=docker"]
        subprocess.run(command, cwd=PROJECT, env=with_first_on_path(tmp_path), stdout=output, check=True)
        assert (tmp_path / "asked").read_text() == f"compose --profile=* logs --tail={lines} app\n"
    os.close(mine)
    os.close(terminal)


def with_first_on_path(folder: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
    return {**environment, "PATH": f"{folder}:{environment['PATH']}"}


def test_an_old_python_is_rejected_in_one_line_for_every_target(tmp_path: Path) -> None:
    """The one that is first on PATH says of itself that it is too old, and can't do anything else."""
    (tmp_path / "python3").write_text('#!/bin/sh\n[ "$1" = -c ] || echo "SyntaxError" >&2\nexit 1\n')
    (tmp_path / "python3").chmod(0o755)
    for target in [
        *COMMANDS.keys() - {"outdated", "check-files"},
        "standins",
    ]:  # parts of the targets outdated and lint
        result = subprocess.run(
            ["make", "--silent", target],
            cwd=PROJECT,
            env=with_first_on_path(tmp_path),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 2
        assert result.stderr.splitlines()[0] == "Sightline needs Python 3.11 or newer as python3.", target
        assert len(result.stderr.splitlines()) == 2, result.stderr


def test_a_virtual_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    """And what may be set for pip does not send its packages elsewhere."""
    project, bin_folder = tmp_path / "project", tmp_path / "bin"
    (project / "requirements").mkdir(parents=True)
    bin_folder.mkdir()
    shutil.copy(PROJECT / "Makefile", project)
    (project / "requirements" / "dev.txt").touch()
    shutil.copy(PROJECT / "requirements" / "install.sh", project / "requirements")
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/usr/bin/python-of-old")
    (python.parent / ".installed").touch()
    (bin_folder / "python3").write_text(
        "#!/bin/sh\n"
        f'echo "$* PIP_USER=$PIP_USER$PIP_TARGET$PIP_PREFIX$PIP_DRY_RUN" >> {tmp_path}/calls\n'
        f'[ "$2" != venv ] || {{ rm {python}; cp "$0" {python}; }}\n'
    )
    (bin_folder / "python3").chmod(0o755)
    for _ in range(2):
        environment = {**with_first_on_path(bin_folder), "PIP_USER": "1", "PIP_DRY_RUN": "1"}
        environment |= dict.fromkeys(("PIP_TARGET", "PIP_PREFIX"), "/nonexistent")
        subprocess.run(["make", "venv"], cwd=project, env=environment, capture_output=True, check=True)
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("-m ")]
    assert [line.split()[1:3] for line in calls] == [["venv", "--clear"], ["pip", "install"]]
    assert all(line.endswith("PIP_USER=0") for line in calls)


def test_only_targets_that_depend_on_it_ask_for_an_engine(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho asked >> {tmp_path / 'asked'}\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    with tempfile.TemporaryDirectory(dir="/tmp") as state:  # the name of a socket in it must be short
        environment = {**with_first_on_path(tmp_path), "SIGHTLINE_STATE": state}

        def make(*arguments: str) -> str:
            command = ["make", *arguments]
            return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True).stderr

        for arguments in (["help"], ["incident"], ["status", "MODE=native"], ["adopt"], ["--dry-run", "up"]):
            make(*arguments)
            assert not (tmp_path / "asked").exists(), arguments
        assert "Nothing runs" in make("status")
    assert (tmp_path / "asked").read_text() == "asked\n"
