# SPDX-License-Identifier: Apache-2.0
"""The connection pool of a SQLAlchemy engine: waiting callers; open, used and discarded connections.

What is measured, and where:

    pool.connect()          a checkout and its result: used + 1, a timeout, or a failed CONNECT
    pool._pool.get()        the checkout wait: a caller waits only if this queue is empty; connecting and pinging happen
                            elsewhere
    pool._invoke_creator()  connecting; callers are pending here and while they wait
    pool._do_return_conn()  a return: used - 1, and open - 1 if it was closed or no longer belongs to the pool
    events                  close, invalidate, soft_invalidate: rare, so the cost of a listener does not matter
    pool.recreate()         the new pool that replaces this one after engine.dispose()
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from sqlalchemy import exc
from sqlalchemy.util.queue import Empty

from .connection import ACTIVE, ConnectionState, States
from .errors import CONNECTION
from .metrics import Number, PoolMetrics, warn_once
from .patches import Patches

# Seconds that the checkout of this thread or task has waited in a queue.
_waited: ContextVar[float] = ContextVar("sightline_pool_waited", default=0.0)


class PoolWatcher:
    """Watches a pool and its successors; `rolled_back` is called if a connection is closed during a transaction."""

    def __init__(
        self,
        pool: Any,
        metrics: PoolMetrics,
        states: States,
        patches: Patches,
        rolled_back: Callable[[ConnectionState], None],
    ) -> None:
        self._metrics = metrics
        self._states = states
        self._patches = patches
        self._rolled_back = rolled_back
        self._pool: Any = None
        # The pool's successors inherit its listeners.
        patches.listen(pool, "close", self._on_close)
        patches.listen(pool, "invalidate", self._on_invalidate)
        patches.listen(pool, "soft_invalidate", self._on_soft_invalidate)
        self._watch(pool)

    def _watch(self, pool: Any) -> None:
        if self._pool is not None:
            self._patches.forget(self._pool)
            self._patches.forget(getattr(self._pool, "_pool", None))
        self._pool = pool
        self._metrics.connections.set_limits(self._states.key, *_limits(pool))
        self._patches.put(pool, "connect", self._measured_connect(pool.connect))
        self._patches.put(pool, "_do_return_conn", self._measured_return(pool))
        self._patches.put(pool, "_invoke_creator", self._measured_creator(pool._invoke_creator))
        self._patches.put(pool, "recreate", self._watched_recreate(pool.recreate))
        queue = getattr(pool, "_pool", None)
        if queue is not None:
            self._patches.put(queue, "get", self._measured_get(queue.get))

    def _measured_connect(self, pool_connect: Callable[[], Any]) -> Callable[[], Any]:
        key, made, connections = self._states.key, self._states.made, self._metrics.connections
        open_, used, moved, no_wait = connections.open, connections.used, connections.moved, self._metrics.no_wait
        waited = _waited.get

        def connect() -> Any:
            try:
                proxy = pool_connect()
            except BaseException as error:
                self._failed(error)
                raise
            try:
                record = proxy._connection_record  # its `info` exists; the proxy would create another one
                state = record.info.get(key) or made(record)
                if state in open_:
                    used.add(state)
                    moved()
                else:
                    open_.add(state)
                    used.add(state)
                    connections.changed()
                state.since = perf_counter()
                if waited():
                    self._count_wait()
                else:
                    no_wait(1.0)
            except Exception:
                warn_once("pool.connect")
            return proxy

        return connect

    def _count_wait(self) -> None:
        seconds = _waited.get()
        _waited.set(0.0)
        self._metrics.wait(seconds)

    def _failed(self, error: BaseException) -> None:
        """Count a failed checkout, for any reason: SQLAlchemy's events report only errors of its own driver."""
        try:
            self._count_wait()
            if isinstance(error, exc.TimeoutError):
                self._metrics.timeouts(1)
            elif isinstance(error, Exception):  # else cancelled
                self._metrics.error("CONNECT", CONNECTION)
        except Exception:
            warn_once("pool.connect")

    def _measured_get(self, queue_get: Callable[..., Any]) -> Callable[..., Any]:
        pending = self._metrics.pending

        def get(block: bool = True, timeout: float | None = None) -> Any:
            if not block:
                return queue_get(False)
            try:
                return queue_get(False)
            except Empty:
                pass
            started = perf_counter()
            _add(pending, 1)
            try:
                return queue_get(True, timeout)
            finally:
                _add(pending, -1)
                _waited.set(_waited.get() + perf_counter() - started)

        return get

    def _measured_creator(self, creator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        pending = self._metrics.pending

        def invoke_creator(record: Any) -> Any:
            _add(pending, 1)
            try:
                return creator(record)
            finally:
                _add(pending, -1)

        return invoke_creator

    def _measured_return(self, pool: Any) -> Callable[[Any], None]:
        key, connections, use = self._states.key, self._metrics.connections, self._metrics.use
        open_, used, moved, pool_return = connections.open, connections.used, connections.moved, pool._do_return_conn

        def do_return_conn(record: Any) -> None:
            try:
                state = record.info.get(key)
                if state in used:
                    used.discard(state)
                    if record.dbapi_connection is not None and pool is self._pool:
                        moved()
                    else:  # invalidated, detached, or from a pool that was disposed
                        open_.discard(state)
                        connections.changed()
                    use(perf_counter() - state.since)
            except Exception:
                warn_once("pool._do_return_conn")
            pool_return(record)

        return do_return_conn

    def _watched_recreate(self, pool_recreate: Callable[[], Any]) -> Callable[[], Any]:
        def recreate() -> Any:
            successor = pool_recreate()
            try:
                self._watch(successor)
            except Exception:
                warn_once("pool.recreate")
            return successor

        return recreate

    def _on_close(self, dbapi_connection: Any, record: Any) -> None:
        try:
            state = self._states.of(record)
            if state is None:
                return
            if state.phase is ACTIVE:  # the client did not end it, so the server did
                self._rolled_back(state)
            connections = self._metrics.connections
            in_use = state in connections.used
            connections.used.discard(state)
            connections.open.discard(state)
            connections.changed()
            if in_use:
                self._metrics.use(perf_counter() - state.since)
        except Exception:
            warn_once("the pool's event close")

    def _on_invalidate(self, dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
        try:
            if exception is None:
                kind = "manual"
            elif isinstance(exception, exc.DisconnectionError):
                kind = "ping"
            else:
                kind = "error" if isinstance(exception, Exception) else "cancelled"
            self._metrics.invalidations[kind](1)
        except Exception:
            warn_once("the pool's event invalidate")

    def _on_soft_invalidate(self, dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
        try:
            self._metrics.invalidations["soft"](1)
        except Exception:
            warn_once("the pool's event soft_invalidate")


def _add(number: Number, amount: float) -> None:
    try:
        number(amount)
    except Exception:
        warn_once("the gauge of pending checkouts")


def _limits(pool: Any) -> tuple[float, float]:
    """Size, and size with overflow, of a pool; infinite where it sets no limit."""
    kind = type(pool).__name__
    if kind in {"StaticPool", "AssertionPool"}:
        return 1.0, 1.0
    size = getattr(pool, "size", None)
    if size is None:  # NullPool
        return math.inf, math.inf
    if not callable(size):  # SingletonThreadPool
        return float(size), float(size)
    overflow = getattr(pool, "_max_overflow", 0)  # has no public name
    if overflow < 0 or size() == 0:
        return float(size()) or math.inf, math.inf
    return float(size()), float(size() + overflow)
