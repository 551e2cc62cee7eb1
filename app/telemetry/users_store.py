# SPDX-License-Identifier: Apache-2.0
"""Active users over several replicas: each different user counted once, with a Valkey or Redis that all of them share.

    store = UsersStore("redis://valkey:6379", key=secret)   # the same key on every replica, and on nothing else
    store.start()                                           # in each worker, e.g. in the application's lifespan
    ...
    store.close()

`active_users` then counts over all replicas, and every replica exports the same number: take the maximum, never the
sum. `active_users_store_up` is 1 while it does. While the store is unavailable, each replica exports its own number.

No request waits for the store. Every five seconds a thread of one worker compares the times of the last visits, which
users.py records in any case, with what it sent before, and sends the new ones as a bitmap per time slot of five
seconds, with one bit for each position in the vector of users.py. The store merges the bitmaps of all replicas (BITOP
OR) and counts the bits of a window's time slots (BITCOUNT). A bit is a position and not a user: neither an identifier
nor its hash leaves the replica, only which of the 2^18 positions of a keyed hash were visited.

The store's own HyperLogLog (PFADD) is not used: its standard error is 0.81 % for any number of users, so one count in
five would be off by more than 1 %. The union of the bitmaps equals the bitmap of a single replica that had seen all
users, so the count has the same error as in users.py: 0.15 % at 100,000 users. It costs 32 KiB for each time slot in
which a user was seen, 23 MiB for the hour.

A window of the store has exactly the length in its name. It ends with the last time slot that every replica has
had time to send: five to ten seconds ago. The replicas' clocks must agree to within a few seconds.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from . import storage
from .users import POSITIONS, WINDOWS, ActiveUsers, active_users, estimate

if TYPE_CHECKING:
    from redis import Redis

SLOT_SECONDS: Final = 5
SLOTS: Final = max(WINDOWS.values()) // SLOT_SECONDS
FILE_NAME: Final = "active_users_store.bin"
LOCK_NAME: Final = "active_users_store.lock"
_EXPIRE_SECONDS: Final = (SLOTS + 4) * SLOT_SECONDS
_TIMEOUT: Final = 2.0  # seconds, for connecting and for a response
_STALE_SECONDS: Final = 3 * SLOT_SECONDS  # a result that no worker has renewed for this long is not used
_CHUNK: Final = 4096  # bytes of visits compared at a time
_BATCH: Final = 32  # time slots sent at a time, 1 MiB
_SOURCES: Final = 15  # bitmaps that Redis merges eight bytes at a time; more than these, byte by byte
_UP, _WHEN, _COUNTS = 0, 1, 2  # the shared doubles

log = logging.getLogger("sightline_telemetry")


class UsersStore(Collector):
    """Counts active users over all replicas.

    Args:
        url: `redis://host:port/database`, or rediss:// for TLS. Pass the password separately, not in the URL.
        key: a secret of at least 16 bytes that all replicas of this service have, and no other service.
        password: of the store's default user.
        users: the counter whose visits are sent and which exports the counts over all replicas.
        directory: the workers' shared folder, by default that of the storage.
        clock: the time in seconds since the epoch.
        registry: where active_users_store_up is registered from start() to close(); None: nowhere.

    Raises:
        ImportError: the package redis is not installed.
        ValueError: the URL is invalid, or the key is too short.
    """

    def __init__(
        self,
        url: str,
        key: bytes,
        password: str | None = None,
        *,
        users: ActiveUsers = active_users,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        if len(key) < 16:
            raise ValueError("the key of the active users' store must have at least 16 bytes")
        self._users = users
        self._clock = clock
        self._registry = registry
        self._client = _client(url, password)
        users.use_key(blake2b(key, digest_size=32, person=b"places").digest())
        # Replicas with another key, such as those of another service, have other names. The braces put all names into
        # one hash slot of a cluster.
        name = blake2b(key, digest_size=8, person=b"name").hexdigest()
        self._prefix = f"{{active_users:{name}}}"
        self._own = f"{self._prefix}:{secrets.token_hex(8)}"
        self._sent = bytes(4 * POSITIONS)
        self._failing: str | None = None
        folder = directory or storage.directory()
        self._lock_file = folder and folder / LOCK_NAME
        self._lock: int | None = None
        size = 8 * (_COUNTS + len(WINDOWS))
        try:
            mapped = storage.map_file(folder and folder / FILE_NAME, size)
        except OSError as error:  # then each worker exchanges separately, which counts no user twice
            log.warning("Active users: the store's counts are not shared between the workers: %s", error)
            self._lock_file, mapped = None, storage.map_file(None, size)
        self._shared = memoryview(mapped).cast("d")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="active-users-store", daemon=True)

    def start(self) -> None:
        """Start exchanging with the store, in a thread. To be called once."""
        self._users.everywhere = self.counts
        if self._registry is not None:
            self._registry.register(self)
        self._thread.start()

    def close(self) -> None:
        """Send new visits and stop the thread; takes at most 8 s, even if the store does not respond."""
        self._closing.set()
        self._thread.join(4 * _TIMEOUT)
        if self._registry is not None:
            self._registry.unregister(self)
        self._users.everywhere = None
        self._client.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def counts(self) -> dict[str, int] | None:
        """Users over all replicas in each of WINDOWS; None while the store is unavailable."""
        if not self._shared[_UP] or abs(self._clock() - self._shared[_WHEN]) > _STALE_SECONDS:
            return None
        return {window: int(self._shared[_COUNTS + number]) for number, window in enumerate(WINDOWS)}

    def exchange(self) -> bool:
        """Send the new visits and fetch the counts; True if that succeeded. Called by one worker at a time."""
        from redis import RedisError

        now = int(self._clock()) // SLOT_SECONDS
        try:
            visits = self._users.visits()
            self._send(self._new(visits, now))
            self._sent = visits
            counts = self._count(now)
        except (RedisError, OSError) as error:
            self._shared[_UP] = 0.0
            self._sent = bytes(4 * POSITIONS)  # the store may come back empty: send the whole last hour again
            reason = str(error) or type(error).__name__
            if self._failing is None:
                log.warning("Active users: the store is unavailable, each replica counts its own users: %s", reason)
            self._failing = reason
            return False
        if self._failing is not None:
            log.warning("Active users: the store is available again, users are counted over all replicas")
            self._failing = None
        for number, window in enumerate(WINDOWS):
            self._shared[_COUNTS + number] = counts[window]
        self._shared[_WHEN] = self._clock()
        self._shared[_UP] = 1.0
        return True

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(
                "active_users_store_up",
                "Whether active_users covers all replicas (1), or only this one as the store is unavailable (0)",
            )
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for family in self.describe():
            family.add_metric([], 0.0 if self.counts() is None else 1.0)
            yield family

    def _run(self) -> None:
        while not self._closing.wait(SLOT_SECONDS - self._clock() % SLOT_SECONDS):
            if self._elected():
                self.exchange()
        if self._elected():
            self.exchange()

    def _elected(self) -> bool:
        """Whether this worker exchanges with the store: it holds the lock, which another worker takes when it ends."""
        if self._lock_file is None or self._lock is not None:
            return True
        try:
            lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _new(self, visits: bytes, now: int) -> dict[int, array[int]]:
        """Time slot -> positions whose last visit was in it and was not sent yet."""
        found: dict[int, array[int]] = {}
        for start in range(0, len(visits), _CHUNK):
            part, sent = visits[start : start + _CHUNK], self._sent[start : start + _CHUNK]
            if part == sent:
                continue
            pairs = zip(array("I", part), array("I", sent), strict=True)
            for position, (second, before) in enumerate(pairs, start // 4):
                if second != before and now - SLOTS <= (slot := second // SLOT_SECONDS) <= now:
                    found.setdefault(slot, array("I")).append(position)
            time.sleep(1e-5)  # lets other threads, such as the event loop's, run
        return found

    def _send(self, positions: dict[int, array[int]]) -> None:
        slots = sorted(positions)
        for first in range(0, len(slots), _BATCH):
            batch = self._client.pipeline(transaction=True)
            for slot in slots[first : first + _BATCH]:
                name = f"{self._prefix}:{slot}"
                batch.set(self._own, _bitmap(positions[slot]))
                batch.bitop("OR", name, name, self._own)
                batch.expire(name, _EXPIRE_SECONDS)
            batch.delete(self._own)
            batch.execute()

    def _count(self, now: int) -> dict[str, int]:
        """Users in the windows that end with the time slot before the last."""
        batch = self._client.pipeline(transaction=True)
        asked: dict[str, int] = {}
        covered = 0
        for window, length in sorted(WINDOWS.items(), key=lambda item: item[1]):
            slots = [now - 2 - back for back in range(covered, length // SLOT_SECONDS)]
            covered = length // SLOT_SECONDS
            for first in range(0, len(slots), _SOURCES):
                names = [f"{self._prefix}:{slot}" for slot in slots[first : first + _SOURCES]]
                batch.bitop("OR", self._own, self._own, *names)
            batch.bitcount(self._own)
            asked[window] = len(batch) - 1
        batch.delete(self._own)
        answers: list[Any] = batch.execute()
        return {window: estimate(answers[number]) for window, number in asked.items()}


def _bitmap(positions: Iterable[int]) -> bytes:
    """A bit for each of POSITIONS, in the order of SETBIT: bit 0 is the most significant bit of the first byte."""
    bits = bytearray(POSITIONS // 8)
    for position in positions:
        bits[position >> 3] |= 0x80 >> (position & 7)
    return bytes(bits)


def _client(url: str, password: str | None) -> Redis:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ImportError("active users over replicas need the package redis: pip install redis") from None
    return Redis.from_url(
        url,
        password=password,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        retry=Retry(NoBackoff(), 0),  # the next exchange tries again
    )
