"""Active users over several replicas, on a real Valkey or Redis: counted once, and without it as before."""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from app.telemetry.users import POSITIONS, WINDOWS, ActiveUsers
from app.telemetry.users_store import SLOT_SECONDS, UsersStore
from tests import servers
from tests.running import Running, wait_until
from tests.telemetry.serving import UVICORN, parse, serve, value


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def valkey() -> Iterator[servers.Valkey]:
    with servers.valkey() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> bytes:
    """Of a service of its own in each test, so that none sees another's users; not at random, as their places are."""
    return hashlib.sha256(request.node.nodeid.encode()).digest()[:16]


class Replica:
    def __init__(self, valkey: servers.Valkey, key: bytes, clock: Clock, directory: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self.users = ActiveUsers(directory, clock, self.registry)
        self.store = UsersStore(
            valkey.url,
            key,
            valkey.password,
            users=self.users,
            directory=directory,
            clock=clock,
            registry=self.registry,
        )
        self.users.everywhere = self.store.counts
        self.registry.register(self.store)

    def exported(self) -> dict[str, float]:
        lines = generate_latest(self.registry).decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


def everywhere(users: float, up: float = 1.0) -> dict[str, float]:
    return {**{f'active_users{{window="{window}"}}': users for window in WINDOWS}, "active_users_store_up": up}


def a_slot_later(clock: Clock, *replicas: Replica) -> None:
    clock.now += SLOT_SECONDS
    for replica in replicas:
        assert replica.store.exchange()


def shown(clock: Clock, *replicas: Replica) -> None:
    """Let the slots end that the users are in, and every replica send them."""
    for _ in range(2):
        a_slot_later(clock, *replicas)


@pytest.mark.parametrize("many", [0, 1, 10, 1_000, 100_000])
def test_four_replicas_count_each_user_once(valkey: servers.Valkey, key: bytes, clock: Clock, many: int) -> None:
    """1 % is more than six standard errors; `make bench ONLY=users` measures them. Half of the users go everywhere."""
    replicas = [Replica(valkey, key, clock) for _ in range(4)]
    for number in range(many):
        for replica in replicas if number % 2 else replicas[number // 2 % 4 :][:1]:
            replica.users.touch(f"user-{number}")
    shown(clock, *replicas)
    counts = [replica.store.counts() for replica in replicas]
    assert counts == [counts[0]] * 4
    assert counts[0] == pytest.approx(dict.fromkeys(WINDOWS, many), rel=0.01, abs=0.1)
    assert replicas[0].exported() == pytest.approx(everywhere(many), rel=0.01, abs=0.1)
    assert replicas[0].users.counts()["1h"] <= 0.65 * many + 1, "one alone does not know"


def test_windows_are_as_long_as_their_names_say(valkey: servers.Valkey, key: bytes, clock: Clock) -> None:
    here, there = (Replica(valkey, key, clock) for _ in range(2))
    here.users.touch("ada")
    shown(clock, here, there)
    assert there.store.counts() == {"1m": 1, "5m": 1, "15m": 1, "1h": 1}
    for window, length in WINDOWS.items():
        clock.now = 1_000_000_000 + length + SLOT_SECONDS  # the last moment
        there.store.exchange()
        assert there.store.counts()[window] == 1  # type: ignore[index]
        a_slot_later(clock, there)
        assert there.store.counts()[window] == 0  # type: ignore[index]


def test_users_of_a_stopped_replica_still_count(valkey: servers.Valkey, key: bytes, clock: Clock) -> None:
    gone, other = (Replica(valkey, key, clock) for _ in range(2))
    gone.users.touch("ada")
    gone.store.exchange()
    gone.store.close = lambda: None  # type: ignore[method-assign]  # killed
    shown(clock, other)
    assert other.exported() == everywhere(1)


def test_services_with_keys_of_their_own_count_apart(valkey: servers.Valkey, key: bytes, clock: Clock) -> None:
    one, other = Replica(valkey, key, clock), Replica(valkey, key[::-1], clock)
    one.users.touch("ada")
    shown(clock, one, other)
    assert (one.exported(), other.exported()) == (everywhere(1), everywhere(0))


def test_nothing_that_names_a_user_leaves(valkey: servers.Valkey, key: bytes, clock: Clock) -> None:
    """One bit of a bitmap, which expires."""
    replica = Replica(valkey, key, clock)
    replica.users.touch("ada@example.com")
    shown(clock, replica)
    client = Redis.from_url(valkey.url, password=valkey.password)
    (kept,) = client.keys(f"{replica.store._prefix}*")
    bitmap = client.get(kept)
    assert isinstance(kept, bytes)
    assert isinstance(bitmap, bytes)
    assert len(bitmap) <= POSITIONS // 8
    assert sum(byte.bit_count() for byte in bitmap) == 1
    assert b"ada" not in kept + bitmap
    assert key not in kept + bitmap
    ttl = client.ttl(kept)
    assert 3600 < ttl <= 3600 + 4 * SLOT_SECONDS


def test_the_store_down_and_back(key: bytes, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with servers.valkey() as valkey:
        here, there = (Replica(valkey, key, clock) for _ in range(2))
        here.users.touch("ada")
        there.users.touch("grace")
        shown(clock, here, there)
        assert here.exported() == everywhere(2)
        valkey.running.stop(signal.SIGKILL)
        with caplog.at_level(logging.WARNING, logger="sightline_telemetry"):
            for _ in range(3):
                clock.now += SLOT_SECONDS
                assert [replica.store.exchange() for replica in (here, there)] == [False, False]
        assert here.exported() == everywhere(1, up=0)
        assert [record.message.partition(":")[2][:25] for record in caplog.records] == [" the store is unavailable"] * 2
        here.users.touch("joan")  # counted all the same when the store is back, empty

        again = Running(valkey.running.server, valkey.running.log_file)
        try:
            again.wait()
            with caplog.at_level(logging.WARNING, logger="sightline_telemetry"):
                shown(clock, here, there)
            assert here.exported() == everywhere(3), "and what the store has lost"
            assert [record.message for record in caplog.records][2:] == [
                "Active users: the store is available again, users are counted over all replicas"
            ] * 2
        finally:
            again.stop()


def test_a_wrong_password_is_reported(
    valkey: servers.Valkey, key: bytes, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = UsersStore(valkey.url, key, "not-the-password", users=ActiveUsers(clock=clock, registry=None), clock=clock)
    with caplog.at_level(logging.WARNING, logger="sightline_telemetry"):
        assert not store.exchange()
    assert "invalid username-password pair" in caplog.text
    assert "not-the-password" not in caplog.text


def test_stale_counts_are_not_exported(valkey: servers.Valkey, key: bytes, clock: Clock) -> None:
    replica = Replica(valkey, key, clock)
    shown(clock, replica)
    assert replica.exported() == everywhere(0)
    clock.now += 60
    assert replica.exported() == everywhere(0, up=0)


def test_one_worker_of_a_replica_exchanges(valkey: servers.Valkey, key: bytes, clock: Clock, tmp_path: Path) -> None:
    first, second = (Replica(valkey, key, clock, tmp_path) for _ in range(2))
    assert first.store._elected()
    assert not second.store._elected()
    second.users.touch("ada")
    shown(clock, first)
    assert second.exported() == everywhere(1)
    first.registry.unregister(first.store)
    first.store.start()
    first.store.close()
    assert second.store._elected()


def test_a_key_comes_to_all_workers(valkey: servers.Valkey, clock: Clock, tmp_path: Path) -> None:
    """What was counted under a former key, in a folder that is used again, is not taken for somebody else."""
    before = ActiveUsers(tmp_path, clock, registry=None)
    before.touch("ada")
    assert before.counts()["1m"] == 1
    first = Replica(valkey, b"0123456789abcdef", clock, tmp_path)
    assert first.users.counts()["1m"] == 0
    first.users.touch("ada")
    second = Replica(valkey, b"0123456789abcdef", clock, tmp_path)
    second.users.touch("ada")
    assert second.users.counts()["1m"] == 1


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [("redis://127.0.0.1", b"short", "at least 16 bytes"), ("valkey.example:6379", b"0123456789abcdef", "redis://")],
)
def test_settings_that_cannot_work(url: str, key: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UsersStore(url, key, registry=None)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match="pip install redis"):
        UsersStore("redis://127.0.0.1", b"0123456789abcdef", registry=None)


def test_two_replicas_of_two_workers(valkey: servers.Valkey, tmp_path: Path) -> None:
    """Real processes with threads of their own; users of both replicas are counted by each worker."""
    environment = {
        "ACTIVE_USERS_STORE": valkey.url,
        "ACTIVE_USERS_STORE_PASSWORD_FILE": str(valkey.password_file),
        "ACTIVE_USERS_KEY": "a key of these two services",  # by a random one two of thirty may share a place
    }
    command = (*UVICORN, "--workers", "2", "tests.telemetry.users.service:app")
    with serve(*command, environment=environment) as here, serve(*command, environment=environment) as there:
        for number in range(20):
            assert here.send("GET", "/visit", f"authorization: {number}\r\n")[0] == 200
            assert there.send("GET", "/visit", f"authorization: {number + 10}\r\n")[0] == 200

        def counted() -> bool:
            found = [parse(served.text()) for served in (here, there) for _ in range(4)]
            return all(value(samples, "active_users", window="5m") == 30 for samples in found)

        wait_until(counted)
