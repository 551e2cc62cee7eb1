# SPDX-License-Identifier: Apache-2.0
"""The metrics, and what one pool name has of them.

    db_query_duration_seconds{pool, operation, query_name}   db_pool_connections{pool, state}
    db_query_errors_total{pool, operation, sqlstate_class}   db_pool_connections_max{pool}, db_pool_overflow{pool}
    db_transactions_total{pool, outcome}                     db_pool_checkout_wait_seconds{pool}
    db_commit_duration_seconds{pool}                         db_pool_connection_use_seconds{pool}
    db_pool_pending_checkouts{pool}                          db_pool_checkout_timeouts_total{pool}
                                                             db_pool_invalidations_total{pool, kind}

Label values come from fixed lists: nothing of a statement, its parameters or its results becomes one. Times are seconds
of the monotonic clock.
"""

from __future__ import annotations

import logging
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from .connection import ConnectionState
from .errors import COMMON_SQLSTATE_CLASSES, OTHER

OUTCOMES: Final = ("commit", "rollback", "commit_failed")
INVALIDATIONS: Final = ("error", "ping", "cancelled", "manual", "soft")

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERY_DURATION = Histogram(
    "db_query_duration_seconds",
    "Time from sending a statement until its result is ready, failed statements included",
    ("pool", "operation", "query_name"),
    buckets=BUCKETS,
)
QUERY_ERRORS = Counter(
    "db_query_errors",
    "Errors of the database or its driver by SQLSTATE class (08 connection, 23 integrity, 40 deadlock...)",
    ("pool", "operation", "sqlstate_class"),
)
TRANSACTIONS = Counter(
    "db_transactions",
    "Transactions that ended; read-only sessions that close are rollbacks",
    ("pool", "outcome"),
)
COMMIT_DURATION = Histogram("db_commit_duration_seconds", "Time of a COMMIT", ("pool",), buckets=BUCKETS)
POOL_CONNECTIONS = Gauge(
    "db_pool_connections", "Open connections of the pool", ("pool", "state"), multiprocess_mode="livesum"
)
POOL_CONNECTIONS_MAX = Gauge(
    "db_pool_connections_max",
    "Most connections the pool may open: size and overflow; +Inf without a limit",
    ("pool",),
    multiprocess_mode="livesum",
)
POOL_OVERFLOW = Gauge(
    "db_pool_overflow", "Open connections beyond the pool's size", ("pool",), multiprocess_mode="livesum"
)
POOL_WAIT = Histogram(
    "db_pool_checkout_wait_seconds",
    "Time a caller waited for a connection to become free, without connecting and pinging; 0 where one was free",
    ("pool",),
    buckets=(0.00005, 0.0001, 0.00025, *BUCKETS),
)
POOL_USE = Histogram(
    "db_pool_connection_use_seconds",
    "Time a connection was out of the pool",
    ("pool",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
POOL_PENDING = Gauge(
    "db_pool_pending_checkouts", "Callers that want a connection and have none", ("pool",), multiprocess_mode="livesum"
)
POOL_TIMEOUTS = Counter("db_pool_checkout_timeouts", "Checkouts given up because no connection became free", ("pool",))
POOL_INVALIDATIONS = Counter("db_pool_invalidations", "Connections thrown away before their time", ("pool", "kind"))

log = logging.getLogger(__package__)
Number = Callable[[float], None]


def observer(histogram: Any) -> Number:
    """The observe() of a histogram's child at two thirds of its price."""
    add, buckets, bounds = histogram._sum.inc, [bucket.inc for bucket in histogram._buckets], histogram._upper_bounds

    def observe(seconds: float) -> None:
        add(seconds)
        buckets[bisect_left(bounds, seconds)](1)

    return observe


def adder(child: Any) -> Number:
    """The inc() of the child of a counter or a gauge at half its price."""
    return child._value.inc  # type: ignore[no-any-return]


class OpenConnections:
    """The open connections of one engine."""

    __slots__ = ("__weakref__", "idle", "limit", "size", "used")

    def __init__(self) -> None:
        self.used: set[ConnectionState] = set()
        self.idle: set[ConnectionState] = set()
        self.size = self.limit = 0.0  # what is open beyond the size is overflow


class PoolMetrics:
    """The children of one pool name's metrics, looked up once, as functions that take what to add."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.durations: dict[tuple[str, str], Number] = {}
        for operation in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            self.duration(operation, OTHER)
        for operation in ("SELECT", "INSERT", "UPDATE", "DELETE", "OTHER", "CONNECT", "COMMIT"):
            for sqlstate_class in COMMON_SQLSTATE_CLASSES:  # from 0, or increase() would miss the first error
                QUERY_ERRORS.labels(pool, operation, sqlstate_class)
        self.commits, self.rollbacks, self.commits_failed = (
            adder(TRANSACTIONS.labels(pool, outcome)) for outcome in OUTCOMES
        )
        self.commit_duration = observer(COMMIT_DURATION.labels(pool))
        self.wait = observer(POOL_WAIT.labels(pool))
        self.use = observer(POOL_USE.labels(pool))
        self.pending = adder(POOL_PENDING.labels(pool))
        self.timeouts = adder(POOL_TIMEOUTS.labels(pool))
        self.invalidations = {kind: adder(POOL_INVALIDATIONS.labels(pool, kind)) for kind in INVALIDATIONS}
        self._used: Any = POOL_CONNECTIONS.labels(pool, "used")._value
        self._idle: Any = POOL_CONNECTIONS.labels(pool, "idle")._value
        self._max: Any = POOL_CONNECTIONS_MAX.labels(pool)._value
        self._overflow: Any = POOL_OVERFLOW.labels(pool)._value
        self._pools: list[weakref.ref[OpenConnections]] = []
        self._stale = False
        self._publishing = threading.Lock()

    def duration(self, operation: str, query_name: str) -> Number:
        observe = self.durations.get((operation, query_name))
        if observe is None:
            observe = observer(QUERY_DURATION.labels(self.pool, operation, query_name))
            self.durations[operation, query_name] = observe
        return observe

    def error(self, operation: str, sqlstate_class: str) -> None:
        QUERY_ERRORS.labels(self.pool, operation, sqlstate_class).inc()

    def add(self, connections: OpenConnections) -> None:
        self._pools.append(weakref.ref(connections))
        self.publish()

    def remove(self, connections: OpenConnections) -> None:
        self._pools = [pool for pool in self._pools if pool() not in (None, connections)]
        self.publish()

    def publish(self) -> None:
        """Set the gauges to what the pools have, after every change of one.

        The garbage collector may return a forgotten connection to its pool at any moment, also while this very thread
        is in here: nobody ever waits for the lock, whoever has it looks again.
        """
        self._stale = True
        while self._stale and self._publishing.acquire(False):
            try:
                self._stale = False
                used = idle = limit = overflow = 0.0
                for pool in self._pools:
                    connections = pool()
                    if connections is not None:  # else its engine is gone
                        used += len(connections.used)
                        idle += len(connections.idle)
                        limit += connections.limit
                        beyond = len(connections.used) + len(connections.idle) - connections.size
                        if beyond > 0:
                            overflow += beyond
                self._used.set(used)
                self._idle.set(idle)
                self._max.set(limit)  # each time: a forked worker's gauges begin at 0
                self._overflow.set(overflow)
            finally:
                self._publishing.release()


_pools: dict[str, PoolMetrics] = {}


def pool_metrics(pool: str) -> PoolMetrics:
    """Those of this name; pools that have one name are added up."""
    if pool not in _pools:
        _pools[pool] = PoolMetrics(pool)
    return _pools[pool]


_warned: set[str] = set()


def warn_once(what: str) -> None:
    """A fault of the measurement, in an `except` clause: it never becomes one of what is measured."""
    if what not in _warned:
        _warned.add(what)
        log.warning("Database telemetry: %s failed; logged once", what, exc_info=True)
