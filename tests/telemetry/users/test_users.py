"""Active users: counted once each, forgotten in time, never written down."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.telemetry.users import FILE_NAME, WINDOWS, ActiveUsers, ActiveUsersMiddleware, Message, Scope, active_users
from tests.running import wait_until
from tests.telemetry.serving import ROOT, UVICORN, Served, parse, serve


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> ActiveUsers:
    return ActiveUsers(clock=clock, registry=None)


def everywhere(count: int) -> dict[str, int]:
    return dict.fromkeys(WINDOWS, count)


def test_no_users(users: ActiveUsers) -> None:
    assert users.counts() == everywhere(0)


def test_a_user_counts_once(users: ActiveUsers) -> None:
    for _ in range(100):
        users.touch("ada")
    assert users.counts() == everywhere(1)
    users.touch("grace")
    users.touch("\ud800 is no proper text")
    assert users.counts() == everywhere(3)


def test_users_leave_the_windows_one_after_the_other(users: ActiveUsers, clock: Clock) -> None:
    users.touch("ada")
    seen = []
    for seconds in (0, 59, 1, 239, 1, 599, 1, 2699, 1):
        clock.now += seconds
        seen.append(list(users.counts().values()))
    assert seen == [
        [1, 1, 1, 1],
        [1, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    users.touch("ada")
    assert users.counts() == everywhere(1)


@pytest.mark.attack("a clock far ahead, back and out of range", tried=4)
def test_a_clock_that_jumps(users: ActiveUsers, clock: Clock) -> None:
    """Set ahead by 30 days, and back: who came in between is in no window. One that is out of range harms nothing."""
    true_time = clock.now
    clock.now = true_time + 30 * 86400
    users.touch("ada")
    assert users.counts() == everywhere(1)
    clock.now = true_time
    users.touch("grace")
    assert users.counts() == everywhere(1)
    clock.now += 86400
    assert users.counts() == everywhere(0)
    clock.now = true_time + 30 * 86400 + 30  # ada's second comes at last
    assert users.counts() == everywhere(0)
    for clock.now in (-5.0, 2.0**33):
        users.touch("joan")


@pytest.mark.parametrize("many", [1_000, 10_000, 100_000])
def test_accuracy(users: ActiveUsers, many: int) -> None:
    """The key is random and so is the error; 1.5 % is more than five standard errors in every case."""
    for number in range(many):
        users.touch(f"user-{number}")
    assert users.counts()["1m"] == pytest.approx(many, rel=0.015)


def test_a_million_identifiers_take_no_memory(users: ActiveUsers) -> None:
    users.touch("first")
    tracemalloc.start()
    try:
        for number in range(1_000_000):
            users.touch(str(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
    assert users.counts()["1m"] == pytest.approx(1_000_000, rel=0.03)


def test_exported(clock: Clock) -> None:
    registry = CollectorRegistry()
    ActiveUsers(clock=clock, registry=registry).touch("ada")
    text = generate_latest(registry).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        f'active_users{{window="{window}"}} 1.0' for window in ("1m", "5m", "15m", "1h")
    ]


def test_the_file_is_private_and_holds_no_identifier(tmp_path: Path, clock: Clock) -> None:
    name = str(uuid.uuid4())
    ActiveUsers(tmp_path, clock, registry=None).touch(name)
    file = tmp_path / FILE_NAME
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [FILE_NAME]
    assert name.encode() not in file.read_bytes()
    another = tmp_path / "another"
    another.mkdir()
    ActiveUsers(another, clock, registry=None).touch(name)
    assert (another / FILE_NAME).read_bytes() != file.read_bytes()  # a key of its own, so another place


def test_shared_between_workers(tmp_path: Path, clock: Clock) -> None:
    workers = [ActiveUsers(tmp_path, clock, registry=None) for _ in range(4)]
    for worker in workers:
        for number in range(100):
            worker.touch(f"user-{number}")
    assert [worker.counts()["1m"] for worker in workers] == [pytest.approx(100, abs=2)] * 4


def test_a_full_disk_is_no_end_of_the_world(tmp_path: Path) -> None:
    """No worker dies of it: each counts for itself, and says so."""
    code = """
import logging, resource, sys
from pathlib import Path
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
from app.telemetry.users import ActiveUsers
users = ActiveUsers(Path(sys.argv[1]), registry=None)
for number in range(100):
    users.touch(str(number))
print(users.counts()["1m"])
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(result.stdout) == pytest.approx(100, abs=2)
    assert result.stderr.count("not shared with the other workers") == 1


def test_shared_with_forked_children(users: ActiveUsers) -> None:
    """Also by the very first touch: a master that has loaded the application forks its workers before any."""
    for name in ("ada", "grace"):
        child = os.fork()
        if child == 0:
            users.touch(name)
            os._exit(0)
        os.waitpid(child, 0)
    users.touch("ada")
    assert users.counts() == everywhere(2)


def test_identifiers_that_are_no_text(users: ActiveUsers) -> None:
    identifier = uuid.uuid4()
    for user_id in (42, "42", identifier, str(identifier), ("tenant", 7), None):
        users.touch(user_id)
    assert users.counts() == everywhere(3)


# The middleware


def through(
    users: ActiveUsers, scope: Scope, identify: Any, *messages: Message, failing: bool = False
) -> list[Message]:
    """Send messages as an application would, and return those that got through."""
    sent: list[Message] = []

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["user_id"] = "ada"
        for message in messages:
            await send(message)
        if failing:
            raise RuntimeError

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("not asked for")

    asyncio.run(ActiveUsersMiddleware(application, identify, users)(scope, receive, send))
    return sent


START, BODY = {"type": "http.response.start", "status": 200}, {"type": "http.response.body"}


def test_a_request_counts_its_user(users: ActiveUsers) -> None:
    sent = through(users, {"type": "http"}, lambda scope: scope["state"]["user_id"], START, BODY)
    assert sent == [START, BODY]
    assert users.counts() == everywhere(1)


def test_no_user_is_no_user(users: ActiveUsers) -> None:
    through(users, {"type": "http"}, lambda _: None, START, BODY)
    through(users, {"type": "lifespan"}, lambda _: "ada")
    assert users.counts() == everywhere(0)


def test_a_request_that_fails_counts_its_user(users: ActiveUsers) -> None:
    with pytest.raises(RuntimeError):
        through(users, {"type": "http"}, lambda scope: scope["state"]["user_id"], failing=True)
    assert users.counts() == everywhere(1)


def test_each_message_of_a_websocket_counts(users: ActiveUsers, clock: Clock) -> None:
    asked = []

    def identify(scope: Scope) -> str:
        asked.append(scope)
        return "ada"

    message = {"type": "websocket.send"}
    through(users, {"type": "websocket"}, identify, message, message)
    assert len(asked) == 3  # each message, and the end
    assert users.counts() == everywhere(1)


def test_an_identify_that_fails_harms_nothing(users: ActiveUsers, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sightline_telemetry"):
        assert through(users, {"type": "http"}, lambda scope: scope["no such"], START, BODY) == [START, BODY]
    assert "logged once" in caplog.text
    assert users.counts() == everywhere(0)


# Several real workers


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with serve(*UVICORN, "--workers", "4", "tests.telemetry.users.service:app", environment=environment) as served:
        yield served, folder


def exported(served: Served) -> dict[str, float]:
    found = parse(served.text())
    return {dict(labels)["window"]: number for (name, labels), number in found.items() if name == "active_users"}


def test_four_workers_count_as_one(service: tuple[Served, Path]) -> None:
    served, folder = service
    everyone = [f"user-{number}" for number in range(10_000)]
    workers: set[int] = set()

    def all_workers_saw_everyone() -> bool:
        for start in range(0, len(everyone), 500):
            status, pid = served.send("POST", "/visits", body=json.dumps(everyone[start : start + 500]))
            assert status == 200
            workers.add(int(pid))
        return len(workers) == 4

    wait_until(all_workers_saw_everyone)
    expected = pytest.approx(10_000, rel=0.01)
    counts = [exported(served) for _ in range(8)]  # whichever worker answers
    assert all(found == {"1m": expected, "5m": expected, "15m": expected, "1h": expected} for found in counts)

    def lasting(found: dict[str, float]) -> dict[str, float]:
        """All windows but the one of a minute, which may be over before a busy machine has started a worker."""
        return {window: number for window, number in found.items() if window != "1m"}

    os.kill(min(workers), signal.SIGKILL)
    wait_until(lambda: int(served.send("GET", "/visit")[1]) not in workers)  # its successor serves
    assert lasting(exported(served)) == lasting(counts[0])

    for _ in range(20):
        served.send("GET", "/visit")  # without a user
    assert lasting(exported(served)) == lasting(counts[0])
    for _ in range(20):
        served.send("GET", "/visit", "authorization: somebody else\r\n")
    assert exported(served)["1h"] - counts[0]["1h"] in {0, 1, 2}  # 0 where their place is taken

    later = ActiveUsers(folder, clock=lambda: active_users._clock() + 61, registry=None).counts()
    assert later["1m"] == 0
    assert later["5m"] == pytest.approx(10_000, rel=0.01)
