# SPDX-License-Identifier: Apache-2.0
"""The database metrics, and the series of one pool name.

    db_query_duration_seconds{pool, operation, query_name}   db_pool_connections{pool, state}
    db_query_errors_total{pool, operation, sqlstate_class}   db_pool_connections_max{pool}, db_pool_overflow{pool}
    db_transactions_total{pool, outcome}                     db_pool_checkout_wait_seconds{pool}
    db_commit_duration_seconds{pool}                         db_pool_connection_use_seconds{pool}
    db_pool_pending_checkouts{pool}                          db_pool_checkout_timeouts_total{pool}
                                                             db_pool_invalidations_total{pool, kind}

Label values come from fixed lists: no statement, parameter or result becomes one. Times are in seconds, measured with
the monotonic clock.
"""

from __future__ import annotations

import collections
import logging
import os
from bisect import bisect_left
from collections.abc import Callable, Sized
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from .connection import ConnectionState
from .errors import COMMON_ERRORS, OTHER

OUTCOMES: Final = ("commit", "rollback", "commit_failed")
INVALIDATIONS: Final = ("error", "ping", "cancelled", "manual", "soft")

# Densest where most queries are; each bound is a series for each query of each instance.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
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
    "Maximum number of connections of the pool: size and overflow; +Inf without a limit",
    ("pool",),
    multiprocess_mode="livesum",
)
POOL_OVERFLOW = Gauge(
    "db_pool_overflow", "Open connections beyond the pool's size", ("pool",), multiprocess_mode="livesum"
)
POOL_WAIT = Histogram(
    "db_pool_checkout_wait_seconds",
    "Time a caller waited for a free connection, without connecting and pinging; 0 if one was free",
    ("pool",),
    buckets=(0.00025, *BUCKETS),
)
POOL_USE = Histogram(
    "db_pool_connection_use_seconds",
    "Time a connection was checked out of the pool",
    ("pool",),
    buckets=(*BUCKETS, 30.0),
)
POOL_PENDING = Gauge(
    "db_pool_pending_checkouts", "Callers waiting for a connection", ("pool",), multiprocess_mode="livesum"
)
POOL_TIMEOUTS = Counter(
    "db_pool_checkout_timeouts", "Checkouts that timed out because no connection became free", ("pool",)
)
POOL_INVALIDATIONS = Counter("db_pool_invalidations", "Connections discarded before their time", ("pool", "kind"))

log = logging.getLogger("sightline_telemetry")
Number = Callable[[float], None]


# Faster versions of the methods of prometheus_client's children. The values of this package's storage provide them; if
# this module was copied alone, the values are those of prometheus_client.


def observer(histogram: Any) -> Number:
    """A function like observe() of a histogram's child."""
    total, bounds = histogram._sum, tuple(histogram._upper_bounds)
    if hasattr(total, "observer"):
        return total.observer(bounds)  # type: ignore[no-any-return]
    add, buckets = total.inc, [bucket.inc for bucket in histogram._buckets]

    def observe(seconds: float) -> None:
        add(seconds)
        buckets[bisect_left(bounds, seconds)](1.0)

    return observe


def zero_observer(histogram: Any) -> Number:
    """A function that counts this many observations of 0, which do not change the sum."""
    return _adder(histogram._buckets[0])


def adder(child: Any) -> Number:
    """A function like inc() of a counter's or gauge's child."""
    return _adder(child._value)


def _adder(number: Any) -> Number:
    return number.adder() if hasattr(number, "adder") else number.inc  # type: ignore[no-any-return]


def sizes(first: Any, second: Any, part: Sized, whole: Sized) -> Callable[[], None]:
    """A function that sets two gauges' children: the first to the size of `part`, the second to the rest of `whole`.

    Other threads may add and remove meanwhile, so it checks after setting whether the sizes are still right.
    """
    one, other = first._value, second._value
    if hasattr(one, "sizes_with"):
        return one.sizes_with(other, part, whole)  # type: ignore[no-any-return]

    def set_both() -> None:
        while True:
            size, of = len(part), len(whole)
            one.set(float(size))
            other.set(float(of - size))
            if size == len(part) and of == len(whole):
                return

    return set_both


class PoolMetrics:
    """The children of one pool name's metrics, looked up once, as functions of the amount to add."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.durations: dict[tuple[str, str], Number] = {}
        self.duration("SELECT", OTHER)  # so that the series exists for an unused pool
        for operation, classes in COMMON_ERRORS.items():
            for sqlstate_class in classes:  # start at 0, or increase() would miss the first error
                QUERY_ERRORS.labels(pool, operation, sqlstate_class)
        self.commits, self.rollbacks, self.commits_failed = (
            adder(TRANSACTIONS.labels(pool, outcome)) for outcome in OUTCOMES
        )
        self.commit_duration = observer(COMMIT_DURATION.labels(pool))
        self.wait = observer(POOL_WAIT.labels(pool))
        self.no_wait = zero_observer(POOL_WAIT.labels(pool))
        self.use = observer(POOL_USE.labels(pool))
        self.pending = adder(POOL_PENDING.labels(pool))
        self.timeouts = adder(POOL_TIMEOUTS.labels(pool))
        self.invalidations = {kind: adder(POOL_INVALIDATIONS.labels(pool, kind)) for kind in INVALIDATIONS}
        self.connections = OpenConnections(pool)

    def duration(self, operation: str, query_name: str) -> Number:
        observe = self.durations.get((operation, query_name))
        if observe is None:
            observe = observer(QUERY_DURATION.labels(self.pool, operation, query_name))
            self.durations[operation, query_name] = observe
        return observe

    def error(self, operation: str, sqlstate_class: str) -> None:
        QUERY_ERRORS.labels(self.pool, operation, sqlstate_class).inc()


class OpenConnections:
    """The open connections of all engines of one pool name, as sets of their states, and the gauges of their numbers.

    `used` is a subset of `open`: add to `open` first, and remove from `used` first.

    The garbage collector may return an unreferenced connection to its pool at any moment, even during a method of this
    class, and so may other threads. There is no lock: adding to a set is atomic, and each thread checks after setting
    a gauge whether the value is still right.
    """

    def __init__(self, pool: str) -> None:
        self.open: set[ConnectionState] = set()
        self.used: set[ConnectionState] = set()
        self._limits: dict[object, tuple[float, float]] = {}  # by engine: size, and size with overflow
        # After a checkout or return, which does not change the number of open connections.
        in_use, idle = (POOL_CONNECTIONS.labels(pool, state) for state in ("used", "idle"))
        self.moved = sizes(in_use, idle, self.used, self.open)
        self._max: Any = POOL_CONNECTIONS_MAX.labels(pool)._value
        self._overflow: Any = POOL_OVERFLOW.labels(pool)._value

    def changed(self) -> None:
        """Update all gauges after a connection was opened or closed, or an engine was added, removed or disposed."""
        self.moved()
        totals = None
        while totals != (totals := self._totals()):
            self._max.set(totals[0])
            self._overflow.set(totals[1])

    def _totals(self) -> tuple[float, float]:
        """The maximum number of connections, and the number open beyond the pools' sizes."""
        limits = self._limits.copy()
        counts = collections.Counter(state.owner for state in self.open.copy())
        overflow = sum(max(0.0, count - limits[owner][0]) for owner, count in counts.items() if owner in limits)
        return sum(limit for _, limit in limits.values()), overflow

    def set_limits(self, owner: object, size: float, limit: float) -> None:
        """Set an engine's limits. Its idle connections are removed: they do not belong to its new pool."""
        self._limits[owner] = size, limit
        self.open -= {state for state in self.open.copy() - self.used if state.owner is owner}
        self.changed()

    def remove(self, owner: object) -> None:
        """Forget an engine."""
        self._limits.pop(owner, None)
        gone = {state for state in self.open.copy() if state.owner is owner}
        self.used -= gone
        self.open -= gone
        self.changed()

    def forked(self) -> None:
        """In a forked child: the connections are the parent's; the gauges restart with the child's first connection."""
        self.used.clear()
        self.open.clear()


_pools: dict[str, PoolMetrics] = {}


def pool_metrics(pool: str) -> PoolMetrics:
    """The metrics of this pool name; pools with the same name are added up."""
    if pool not in _pools:
        _pools[pool] = PoolMetrics(pool)
    return _pools[pool]


def _forked() -> None:
    for metrics in _pools.values():
        metrics.connections.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


_warned: set[str] = set()


def warn_once(what: str) -> None:
    """Log an error of the measurement, in an `except` clause, so that it never reaches the application."""
    if what not in _warned:
        _warned.add(what)
        log.warning("Database telemetry: %s failed; logged once", what, exc_info=True)
