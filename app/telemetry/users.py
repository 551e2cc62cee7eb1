# SPDX-License-Identifier: Apache-2.0
"""Active users: how many different users were seen in the last minute, 5 minutes, 15 minutes and hour.

One line counts the users of every request:

    app.add_middleware(ActiveUsersMiddleware, identify=lambda scope: scope.get("state", {}).get("user_id"))

or, wherever a user is known: `active_users.touch(user_id)`.

`active_users{window="1m"|"5m"|"15m"|"1h"}` counts each user once, however many requests and workers they use. Only
users that `identify` returns count: unauthenticated traffic is not counted.

No identifier is stored. A user's keyed hash selects one of 2^18 positions in a vector, which holds the time of the
last visit in seconds. The number of users is estimated from the number of occupied positions (linear counting, Whang et
al., ACM TODS 15(2), 1990): n = -m ln(1 - c/m) for c of m positions, with a standard error of 0.14 % at 10,000 users
and 0.33 % at a million. It takes 1 MiB for any number of users.

With several workers the vector and its key are in one file of mode 0600 in their shared folder, so that all workers
count the same users and nothing is lost with a killed worker. Across hosts the numbers cannot be added: the largest is
a lower bound and the sum an upper bound. users_store.py counts over all hosts.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from . import storage

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

WINDOWS: Final = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600}  # seconds
POSITIONS: Final = 2**18
FILE_NAME: Final = "active_users.bin"
_KEY_BYTES: Final = 32
_SIZE: Final = _KEY_BYTES + 4 * POSITIONS
_LAST_SECOND: Final = 2**32 - 1
_CHUNK: Final = 2**14  # positions counted at a time, half a millisecond
_WRONG: Final = 3600  # seconds ahead of the clock; a visit later than this was recorded while the clock was wrong
_PAUSE: Final = 1e-5  # seconds of sleep, which let other threads, such as the event loop's, run

log = logging.getLogger("sightline_telemetry")


class ActiveUsers(Collector):
    """A count of different users per time window, shared by the workers of a host.

    Args:
        directory: the workers' shared folder, by default that of the storage. A single process has none and keeps the
            numbers in memory.
        clock: the time in seconds since the epoch.
        registry: where the metric is registered; None: nowhere.
    """

    def __init__(
        self,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self._clock = clock
        key = secrets.token_bytes(_KEY_BYTES)  # the first worker's is used by all
        try:
            folder = directory or storage.directory()
            mapped = storage.map_file(folder and folder / FILE_NAME, _SIZE, head=key)
        except OSError as error:
            log.warning("Active users: not shared with the other workers, each counts its own: %s", error)
            mapped = storage.map_file(None, _SIZE, head=key)
        # Mapped here and not at the first touch, so that processes forked from this one share the mapping.
        self._key = bytes(mapped[:_KEY_BYTES])
        self._shared_key = memoryview(mapped)[:_KEY_BYTES]
        self._last_seen = memoryview(mapped)[_KEY_BYTES:].cast("I")
        self.everywhere: Callable[[], Mapping[str, int] | None] | None = None
        """Returns the counts over all replicas, which are then exported; None while they are unknown."""
        if registry is not None:
            registry.register(self)

    def touch(self, user_id: object) -> None:
        """Count the user as active now. `user_id`: anything with a unique str(); None: no user."""
        if user_id is None:
            return
        digest = blake2b(str(user_id).encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()
        second = min(max(int(self._clock()), 0), _LAST_SECOND)
        self._last_seen[int.from_bytes(digest, "little") % POSITIONS] = second

    def use_key(self, key: bytes) -> None:
        """Hash with this 32-byte key, which all replicas share. Visits recorded under another key are discarded."""
        if self._shared_key != key:
            self._shared_key[:] = key
            for start in range(0, POSITIONS, _CHUNK):
                self._last_seen[start : start + _CHUNK] = memoryview(bytes(4 * _CHUNK)).cast("I")
        self._key = key

    def visits(self) -> bytes:
        """The time of the last visit per position, in seconds since the epoch, 0: none. POSITIONS 4-byte integers."""
        return self._last_seen.tobytes()

    def counts(self) -> dict[str, int]:
        """Estimated users seen in each of WINDOWS (`{"1m": 12, "5m": 40, ...}`), which end now."""
        visits: Counter[int] = Counter()
        for start in range(0, POSITIONS, _CHUNK):
            visits.update(self._last_seen[start : start + _CHUNK])
            time.sleep(_PAUSE)
        now = self._clock()
        if max(visits) > now + _WRONG:
            self._forget_after(now + _WRONG)
        occupied = {
            # A time in the future was recorded before the clock was set back.
            window: sum(positions for second, positions in visits.items() if now - length < second <= now)
            for window, length in WINDOWS.items()
        }
        return {window: estimate(positions) for window, positions in occupied.items()}

    def _forget_after(self, latest: float) -> None:
        """After the clock was set back: without this, earlier visits would be counted once their time is reached."""
        for position, second in enumerate(self._last_seen):
            if second > latest:
                self._last_seen[position] = 0

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(
                "active_users",
                "Distinct authenticated users seen in the window: by all workers or, with a store, by all replicas",
                labels=["window"],
            )
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for family in self.describe():
            counts = self.everywhere() if self.everywhere else None
            for window, users in (self.counts() if counts is None else counts).items():
                family.add_metric([window], users)
            yield family


def estimate(occupied: int) -> int:
    """The number of users that occupy this many positions; at most 3.3 million, the estimate with one free position."""
    return round(-POSITIONS * math.log(1 - min(occupied, POSITIONS - 1) / POSITIONS))


active_users = ActiveUsers()


class ActiveUsersMiddleware:
    """Count the user of each request and of each message sent over a websocket (pure ASGI).

    `identify(scope)` returns the authenticated user's identifier or None. It is called when the response starts, so
    it sees what a route or a dependency put into `request.state`. If it raises, the request continues uncounted.
    """

    def __init__(self, app: App, identify: Callable[[Scope], object], users: ActiveUsers = active_users) -> None:
        self.app = app
        self._identify = identify
        self._users = users
        self._failed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        looking = True

        async def look_and_send(message: Message) -> None:
            nonlocal looking
            if looking:
                self._look(scope)
                looking = scope["type"] == "websocket"
            await send(message)

        try:
            await self.app(scope, receive, look_and_send)
        finally:
            if looking:  # the handler failed before it answered, or a websocket ended
                self._look(scope)

    def _look(self, scope: Scope) -> None:
        try:
            self._users.touch(self._identify(scope))
        except Exception:
            if not self._failed:
                self._failed = True
                log.warning("Active users: a user could not be counted; logged once", exc_info=True)
