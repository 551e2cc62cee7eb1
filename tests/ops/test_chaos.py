"""Commands are ended at random moments: nothing is lost, nothing stays half done, and the next `make up` works.

`make chaos` prints the seed and a table of what was tried; FOR=3600 SEED=n: for an hour, in that order; TIMES=20: until
each signal has hit each command 20 times; ONLY="down,first up": these commands. The same in Docker:
tests/ops/docker/test_chaos.py; `make standins`: tests/ops/docker/test_standins.py.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import psutil
import psycopg
import pytest

from ops.paths import PROJECT
from ops.supervise import MARK
from tests.ops.chaos import ENDS, SEED, Chaos, interruptions, struck
from tests.ops.native import Stack, native_stack
from tests.running import folder, wait_until

pytestmark = pytest.mark.chaos


class Native(Chaos):
    """A stack of processes."""

    mode = "native"

    def __init__(self, stack: Stack, dice: random.Random) -> None:
        self.stack = stack
        super().__init__(stack.project, stack.environment, dice)

    def users(self) -> set[str]:
        password = (self.secrets / "app_db_password").read_text()
        address = {"host": "127.0.0.1", "port": self.stack.port("postgres"), "user": "sightline", "dbname": "sightline"}
        with psycopg.connect(**address, password=password, connect_timeout=10) as connection:  # type: ignore[arg-type]
            return {name for (name,) in connection.execute("SELECT name FROM users")}

    def verify_nothing_is_left(self) -> None:
        states = {name: one["statename"] for name, one in self.stack.supervisor.processes().items()}
        assert set(states.values()) == {"RUNNING"}, states
        wait_until(lambda: not self.strays(), ENDS)

    def strays(self) -> list[str]:
        """The processes of this stack that its supervisor did not start."""
        (supervisor,) = (one for one in self.stack.processes() if "supervisor.supervisord" in one.cmdline())
        ours = {supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))}
        found = []
        for one in psutil.process_iter(["pid", "environ", "cmdline"]):
            environment = one.info["environ"] or {}
            if str(self.stack.state) in (environment.get(MARK), environment.get("SIGHTLINE_STATE")):
                found += [" ".join(one.info["cmdline"] or ())] * (one.pid not in ours)
        return found


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    with native_stack("1s") as stack:
        stack.environment["APP_SIGN_UPS_PER_MINUTE"] = "0"
        started = Native(stack, random.Random(SEED))
        yield started
        started.close()


def interrupt_installation(dice: random.Random, end: signal.Signals, group: bool) -> bool:
    """`make venv` with one of the pinned packages only: ended, and then run again."""
    with folder("venv") as project:
        shutil.copy(PROJECT / "Makefile", project)
        (project / "requirements").mkdir()
        pins = (PROJECT / "requirements" / "dev.txt").read_text()
        (pin,) = re.findall(r"^psutil==(?:.*\\\n)*.*\n", pins, re.MULTILINE)
        (project / "requirements" / "dev.txt").write_text(pin)
        hit = struck(["make", "venv"], project, None, end, group, dice.uniform(0, 12), "-m")
        again = subprocess.run(["make", "venv"], cwd=project, capture_output=True, text=True, timeout=ENDS)
        assert again.returncode == 0, again.stderr
        subprocess.run([project / ".venv" / "bin" / "python", "-c", "import pip, psutil"], check=True)
        assert not (project / ".venv" / "bin" / ".installing").exists()
    return hit


def test_commands_that_are_interrupted_lose_nothing(chaos: Chaos, summarize: Callable[[str, str], None]) -> None:
    attempts = chaos.attempts() | {"venv": partial(interrupt_installation, chaos.dice)}
    interruptions("native", attempts, chaos.dice, summarize)
