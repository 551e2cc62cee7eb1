"""Commands of `make` that are ended at random moments, natively and in Docker.

Each round runs one command on a stack of its own while a client signs users up, sends a signal to the whole process
group, as a terminal does, or to the one process that does the work, and then runs `make up`.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx2
import psutil

from ops import archive
from tests.running import default_signals, wait_until

TIMES = float(os.environ.get("CHAOS_TIMES") or math.inf)  # that each command is to be hit by each signal
SECONDS = float(os.environ.get("CHAOS_SECONDS") or (100 if math.inf == TIMES else math.inf))
SEED = int(os.environ.get("CHAOS_SEED") or time.time())
ONLY = {name.strip() for name in (os.environ.get("CHAOS_ONLY") or "").split(",") if name.strip()}  # commands; all
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
ENDS = 300.0  # seconds for any command to end, also on a busy machine
UNDONE = 0.3  # share of the restores that are then undone, to see what they replaced
COMMANDS = ("up", "first up", "down", "backup", "restore", "clean")

# One command that is ended by the signal, sent to the group or to one process, and then the verification of what is
# there; whether the command was still running.
Attempt = Callable[[signal.Signals, bool], bool]


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
            with suppress(httpx2.HTTPError):
                if httpx2.post(f"{self.url}/users", json={"name": name}, timeout=5).status_code == 201:
                    self.acknowledged.add(name)
            time.sleep(0.05)

    def pause(self) -> None:
        self.goes.clear()
        self._idle.wait(30)


class Chaos(ABC):
    """A running stack, its client, and an archive of some of the client's users."""

    mode: str

    def __init__(self, project: Path, environment: dict[str, str], dice: random.Random) -> None:
        self.project, self.environment, self.dice = project, environment, dice
        self.backups, self.secrets, self.state = (
            Path(environment[name]) for name in ("BACKUPS_DIR", "SECRETS_DIR", "SIGHTLINE_STATE")
        )
        self.seconds: dict[str, float] = {}  # command -> how long it takes when nothing ends it
        self.client = Client(f"http://127.0.0.1:{environment['APP_PORT']}")
        self.client.start()
        self.make("up")
        self.write_some()
        self.client.pause()
        self.archived = self.users()
        self.make("backup")
        (self.archive,) = self.backups.glob("*.tar")
        self.seconds |= {"first up": self.seconds["up"], "restore": self.seconds["up"] + self.seconds["backup"]}
        self.seconds |= {"down": 5.0, "clean": 6.0}

    @abstractmethod
    def users(self) -> set[str]:
        """The names of the users in the database."""

    @abstractmethod
    def verify_nothing_is_left(self) -> None:
        """Every server runs, and nothing else of the stack."""

    def close(self) -> None:
        self.client.over = True
        self.client.goes.set()

    def write_some(self) -> None:
        wanted = len(self.client.acknowledged) + 5
        self.client.goes.set()
        wait_until(lambda: len(self.client.acknowledged) >= wanted)

    def words(self, *command: str) -> list[str]:
        return ["make", "--silent", *command, f"MODE={self.mode}"]

    def make(self, *words: str) -> None:
        started = time.monotonic()
        result = self.run(*words)
        assert result.returncode == 0, f"make {words}: {result.stdout}{result.stderr}"
        self.seconds[words[0]] = time.monotonic() - started

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words), cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=ENDS
        )

    def interrupt(self, command: str, end: signal.Signals, group: bool) -> bool:
        """Whether the command was still running when the signal came."""
        if command == "first up":
            self.client.pause()
            self.make("clean", "CONFIRM=1")
            shutil.rmtree(self.state)
            shutil.rmtree(self.secrets)
            self.client.acknowledged.clear()
        elif command == "up":
            self.make("down")
        else:
            self.write_some()
        started = time.monotonic()
        more = {"restore": (f"FROM={self.archive}", "CONFIRM=1"), "clean": ("CONFIRM=1",)}.get(command, ())
        words = self.words(command.split()[-1], *more)
        hit = struck(
            words, self.project, self.environment, end, group, self.dice.uniform(0, self.seconds[command]), "ops"
        )
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
            assert re.match(r"make(\[\d+\])?: \*\*\*", of_make), result.stdout + result.stderr
            says = re.search(r"`make ([^`]+)`", complaint[0])
            assert says, result.stdout + result.stderr
            assert not says[1].startswith("logs"), result.stdout + result.stderr  # that is no remedy
            self.make(*says[1].split(), "CONFIRM=1")
            self.make("up")
        self.verify_nothing_is_left()
        names = ("*.partial*", ".partial-*", "data.*", "restoring")
        places = (self.backups, self.state, self.secrets)
        assert not [str(path) for place in places for name in names for path in place.rglob(name)]
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
            with archive.opened(file, self.backups):
                pass
            if file != self.archive:
                file.unlink()

    def attempts(self) -> dict[str, Attempt]:
        return {command: partial(self.attempt, command) for command in COMMANDS}

    def attempt(self, command: str, end: signal.Signals, group: bool) -> bool:
        hit = self.interrupt(command, end, group)
        self.verify(command)
        return hit


def interruptions(
    mode: str, attempts: Mapping[str, Attempt], dice: random.Random, summarize: Callable[[str, str], None]
) -> None:
    """Attempts until the time is over, or each command was hit often enough; a table of them at the end of the run."""
    wanted = [command for command in attempts if not ONLY or command in ONLY]
    assert wanted, f"CHAOS_ONLY={','.join(ONLY)} is none of {', '.join(attempts)}"
    kinds = list(itertools.product(wanted, SIGNALS, (True, False)))
    tried: Counter[tuple[str, str]] = Counter({(command, end.name): 0 for command, end, _ in kinds})
    lost: Counter[tuple[str, str]] = Counter()
    deadline = time.monotonic() + SECONDS
    rounds = itertools.count(1)
    try:
        while min(tried.values()) < TIMES and time.monotonic() < deadline:
            dice.shuffle(kinds)
            for command, end, group in kinds:
                kind = command, end.name
                if tried[kind] >= TIMES or time.monotonic() > deadline:
                    continue
                to = "the group" if group else "one"
                print(f"seed {SEED}, round {next(rounds)}: {command}, {end.name} to {to}", flush=True)
                try:
                    tried[kind] += attempts[command](end, group)
                except Exception:
                    tried[kind] += 1
                    lost[kind] += 1
                    raise
    finally:
        title = f"interruptions ({mode}, seed {SEED})"
        summarize(title, f"{'command':<10}{'signal':<9}{'tried':>5}{'lost':>6}")
        for (command, name), times in sorted(tried.items()):
            summarize(title, f"{command:<10}{name:<9}{times:>5}{lost[command, name]:>6}")
        summarize(title, f"{'all':<19}{tried.total():>5}{lost.total():>6}")
    assert tried.total() > 0


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
