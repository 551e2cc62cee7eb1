"""In Docker, too, commands are ended at random moments, and so is `make standins`: see tests/ops/chaos.py.

CHAOS_SECONDS=3600 CHAOS_SEED=n make test-stack TESTS=tests/ops/docker/test_chaos.py: for an hour, in that order.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ops import images
from ops.paths import PROJECT
from tests.ops.chaos import ENDS, SEED, Chaos, struck
from tests.ops.docker.conftest import Stack
from tests.rig import standins
from tests.servers import wait_until

pytestmark = pytest.mark.stack

STANDIN = "node-exporter"  # whose image is removed and built again; nothing of it is fetched


class InDocker(Chaos):
    """A stack of containers."""

    mode = "docker"

    def __init__(self, stack: Stack, environment: dict[str, str], dice: random.Random) -> None:
        self.stack = stack
        super().__init__(PROJECT, environment, dice)

    def users(self) -> set[str]:
        query = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command=SELECT name FROM users"]
        login = (
            'PGPASSWORD=$(cat /run/secrets/app_db_password) exec "$@" --host=127.0.0.1 --username=sightline sightline'
        )
        return set(self.stack.compose("exec", "-T", "postgres", "sh", "-c", login, "sh", *query).splitlines())

    def verify_nothing_is_left(self) -> None:
        assert self.stack.health() == dict.fromkeys(self.stack.services, "healthy")
        wait_until(lambda: sorted(self.containers()) == sorted(self.stack.services), ENDS)

    def containers(self) -> list[str]:
        """The service of each of the project's containers, running or not, and of those that commands run once."""
        label = f"label=com.docker.compose.project={self.stack.environment['COMPOSE_PROJECT_NAME']}"
        show = '{{.Label "com.docker.compose.service"}}'
        return self.stack.docker("ps", "--all", "--filter", label, "--format", show).splitlines()


@pytest.fixture
def chaos(stack: Stack, tmp_path: Path) -> Iterator[InDocker]:
    environment = {**stack.environment, "BACKUPS_DIR": str(tmp_path), "APP_SIGN_UPS_PER_MINUTE": "0"}
    started = InDocker(stack, environment, random.Random(SEED))
    yield started
    started.close()
    stack.up()  # as the other tests' environment has it


def test_commands_that_are_interrupted_lose_nothing(chaos: InDocker, tell: Callable[[str, str], None]) -> None:
    def interrupt_standins(dice: random.Random, end: signal.Signals, group: bool) -> bool:
        """The stand-in of an image whose name is taken from it: ended, and then made again."""
        image = images.upstream()[STANDIN]
        chaos.stack.docker("tag", image, "sightline-test-keeps:it")
        chaos.stack.docker("image", "rm", image)
        command = [sys.executable, "-m", "tests.rig", "standins"]
        environment = chaos.stack.environment
        hit = struck(
            ["make", "--silent", "standins"], PROJECT, environment, end, group, dice.uniform(0, 6), "tests.rig"
        )
        subprocess.run(command, cwd=PROJECT, env=environment, check=True, timeout=ENDS)
        assert standins.missing(environment) == {}
        chaos.stack.docker("image", "rm", "sightline-test-keeps:it")
        return hit

    chaos.go_on({"standins": interrupt_standins}, tell)


DEBOOTSTRAP = """#!/bin/sh -e
mkdir -p "$4/proc"
mount -t proc proc "$4/proc"
sleep 1000 &
touch "$4/begun"
wait
"""
MAKE_BASE = """
import os, sys
from pathlib import Path
from tests.rig import standins
standins.HOME = Path(sys.argv[1])
standins._import_base(dict(os.environ))
"""


def test_the_base_of_the_standins_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    """debootstrap is one that mounts something, and then takes long; the second time one that fails."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "debootstrap"
    program.write_text(DEBOOTSTRAP)
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", MAKE_BASE, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, env=environment) as killed:
        wait_until(lambda: list(tmp_path.glob("base-*/root/begun")))
        killed.kill()

    def processes() -> list[int]:
        return [one.pid for one in psutil.process_iter(["cmdline"]) if str(program) in (one.info["cmdline"] or ())]

    wait_until(lambda: not processes())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list(tmp_path.glob("base-*"))
    program.write_text("#!/bin/sh\nexit 1\n")
    assert subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True).returncode == 1
    assert not list(tmp_path.glob("base-*"))
