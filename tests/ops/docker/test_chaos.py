"""In Docker, too, commands are ended at random moments: see tests/ops/chaos.py.

CHAOS_SECONDS=3600 CHAOS_SEED=n make test-stack TESTS=tests/ops/docker/test_chaos.py: for an hour, in that order.
CHAOS_TIMES=20 CHAOS_ONLY="down,first up": until each signal has hit each of these commands 20 times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.paths import PROJECT
from tests.ops.chaos import ENDS, SEED, Chaos, interruptions
from tests.ops.docker.conftest import Stack
from tests.running import wait_until

pytestmark = pytest.mark.stack


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


def test_commands_that_are_interrupted_lose_nothing(chaos: InDocker, summarize: Callable[[str, str], None]) -> None:
    interruptions("docker", chaos.attempts(), chaos.dice, summarize)
