"""Commands are ended at random moments: nothing is lost, nothing stays half done, and the next `make up` works.

`make chaos` prints the seed and a table of what was tried; FOR=3600 SEED=n: for an hour, in that order. Each round runs
one command of `make` on a stack without Docker while a client signs users up, sends a signal to the whole process
group, as a terminal does, or to the one process that does the work, and then runs `make up`.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from ops import backup
from ops.paths import PROJECT
from ops.supervise import MARK
from tests.ops.native import Stack, native_stack
from tests.servers import default_signals, folder, wait_until

pytestmark = pytest.mark.chaos

SECONDS = float(os.environ.get("CHAOS_SECONDS") or 100)
SEED = int(os.environ.get("CHAOS_SEED") or time.time())
COMMANDS = ("up", "first up", "down", "backup", "restore", "clean", "venv")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
ENDS = 300.0  # seconds for any command to end, also on a busy machine
UNDONE = 0.3  # share of the restores that are then undone, to see what they replaced


class Client(threading.Thread):
    """Signs up users as long as the service answers, and remembers those that it has acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.acknowledged: set[str] = set()
        self.goes = threading.Event()
        self.over = False
        self._idle = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            if not self.goes.is_set():
                self._idle.set()
                self.goes.wait()
                self._idle.clear()
            if self.over:
                return
            name = f"user {number}"
            with suppress(httpx.HTTPError):
                if httpx.post(f"{self.url}/users", json={"name": name}, timeout=5).status_code == 201:
                    self.acknowledged.add(name)
            time.sleep(0.05)

    def pause(self) -> None:
        self.goes.clear()
        self._idle.wait(30)


class Chaos:
    """A running stack, its client, and an archive of some of the client's users."""

    def __init__(self, stack: Stack, dice: random.Random) -> None:
        self.stack, self.dice = stack, dice
        self.backups = Path(stack.environment["BACKUPS_DIR"])
        self.seconds: dict[str, float] = {}  # command -> how long it takes when nothing ends it
        self.client = Client(f"http://127.0.0.1:{stack.port('app')}")
        self.client.start()
        self.make("up")
        self.write_some()
        self.client.pause()
        self.archived = self.users()
        self.make("backup")
        (self.archive,) = self.backups.glob("*.tar")
        self.seconds |= {"first up": self.seconds["up"], "restore": self.seconds["up"] + self.seconds["backup"]}
        self.seconds |= {"down": 5.0, "clean": 6.0}

    def write_some(self) -> None:
        wanted = len(self.client.acknowledged) + 5
        self.client.goes.set()
        wait_until(lambda: len(self.client.acknowledged) >= wanted)

    def words(self, command: str) -> list[str]:
        more = {"restore": [f"FROM={self.archive}", "CONFIRM=1"], "clean": ["CONFIRM=1"]}
        return ["make", "--silent", command.split()[-1], "MODE=native", *more.get(command, ())]

    def make(self, *words: str) -> None:
        started = time.monotonic()
        result = self.run(*words)
        assert result.returncode == 0, f"make {words}: {result.stdout}{result.stderr}"
        self.seconds[words[0]] = time.monotonic() - started

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--silent", *words, "MODE=native"]
        place = {"cwd": self.stack.project, "env": self.stack.environment}
        return subprocess.run(command, **place, capture_output=True, text=True, timeout=ENDS)  # type: ignore[call-overload,no-any-return]

    def users(self) -> set[str]:
        password = (Path(self.stack.environment["SECRETS_DIR"]) / "app_db_password").read_text()
        address = {"host": "127.0.0.1", "port": self.stack.port("postgres"), "user": "sightline", "dbname": "sightline"}
        with psycopg.connect(**address, password=password, connect_timeout=10) as connection:  # type: ignore[arg-type]
            return {name for (name,) in connection.execute("SELECT name FROM users")}

    def interrupt(self, command: str, end: signal.Signals, group: bool) -> bool:
        """Whether the command was still at work when the signal came."""
        if command == "first up":
            self.client.pause()
            self.make("clean", "CONFIRM=1")
            shutil.rmtree(self.stack.state)
            shutil.rmtree(self.stack.environment["SECRETS_DIR"])
            self.client.acknowledged.clear()
        elif command == "up":
            self.make("down")
        else:
            self.write_some()
        started = time.monotonic()
        place = (self.stack.project, self.stack.environment)
        hit = struck(self.words(command), *place, end, group, self.dice.uniform(0, self.seconds[command]), "ops")
        if not hit:
            self.seconds[command] = time.monotonic() - started
        return hit

    def verify(self, command: str) -> None:
        """`make up`, and if it names another command that one first; then everything is there that has to be."""
        self.client.pause()
        result = self.run("up")
        if result.returncode:
            *complaint, of_make = result.stderr.strip().splitlines()
            assert len(complaint) == 1, result.stdout + result.stderr
            assert of_make.startswith("make: ***")
            says = re.search(r"`make ([^`]+)`", complaint[0])
            assert says, result.stdout + result.stderr
            self.make(*says[1].split(), "CONFIRM=1")
            self.make("up")
        self.verify_nothing_is_left()
        acknowledged, found = set(self.client.acknowledged), self.users()
        lost = acknowledged - found
        if command == "clean" and not acknowledged & found:
            lost = set()
        elif command == "restore" and lost:
            assert found >= self.archived, "neither what was there before nor what was restored"
            *_, before = sorted(self.backups.glob("*-before-restore.tar"))
            if self.dice.random() < UNDONE:
                self.make("restore", f"FROM={before}", "CONFIRM=1")
                lost -= self.users()
            else:
                lost = set()
        assert not lost, f"{len(lost)} acknowledged rows are lost"
        self.client.acknowledged = self.users()
        for file in self.backups.iterdir():
            with backup._opened(file, self.backups):
                pass
            if file != self.archive:
                file.unlink()

    def verify_nothing_is_left(self) -> None:
        states = {name: one["statename"] for name, one in self.stack.supervisor.processes().items()}
        assert set(states.values()) == {"RUNNING"}, states
        places = (self.backups, self.stack.state, Path(self.stack.environment["SECRETS_DIR"]))
        names = ("*.partial*", "data.*", "restoring")
        left = [str(path) for place in places for name in names for path in place.rglob(name)]
        assert not left
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


def struck(
    command: list[str],
    place: Path,
    environment: dict[str, str] | None,
    end: signal.Signals,
    group: bool,
    after: float,
    program: str,
) -> bool:
    """Run the command until it ends, `strike` it meanwhile; whether it was hit."""
    with subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=default_signals,
    ) as run:
        hit = strike(run, end, group, after, program)
        run.wait(ENDS)
    return hit


def strike(run: subprocess.Popen[bytes], end: signal.Signals, group: bool, after: float, program: str) -> bool:
    """Send the signal after so many seconds: to the group, or to the process of `make`'s that runs this program."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(after)
        return False
    workers = [run.pid]
    with suppress(psutil.Error):
        workers += [one.pid for one in psutil.Process(run.pid).children(True) if program in one.cmdline()[1:3]]
    with suppress(ProcessLookupError):
        os.killpg(run.pid, end) if group else os.kill(workers[min(1, len(workers) - 1)], end)
    return True


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    with native_stack("1s") as stack:
        stack.environment["APP_SIGN_UPS_PER_MINUTE"] = "0"
        started = Chaos(stack, random.Random(SEED))
        yield started
        started.client.over = True
        started.client.goes.set()


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


def test_commands_that_are_interrupted_lose_nothing(chaos: Chaos, tell: Callable[[str, str], None]) -> None:
    tried: Counter[tuple[str, str]] = Counter()
    kinds = list(itertools.product(COMMANDS, SIGNALS, (True, False)))
    deadline = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < deadline:
        if rounds % len(kinds) == 0:
            chaos.dice.shuffle(kinds)
        command, end, group = kinds[rounds % len(kinds)]
        rounds += 1
        print(f"seed {SEED}, round {rounds}: {command}, {end.name} to {'the group' if group else 'one'}", flush=True)
        if command == "venv":
            hit = interrupt_installation(chaos.dice, end, group)
        else:
            hit = chaos.interrupt(command, end, group)
            chaos.verify(command)
        tried[command, end.name] += hit
    title = f"interruptions (seed {SEED}, {SECONDS:g} s)"
    tell(title, f"{'command':<10}{'signal':<9}{'tried':>5}  lost")
    for (command, name), times in sorted(tried.items()):
        tell(title, f"{command:<10}{name:<9}{times:>5}     0")
    tell(title, f"{'all':<19}{tried.total():>5}     0")
    assert tried.total() > 0
