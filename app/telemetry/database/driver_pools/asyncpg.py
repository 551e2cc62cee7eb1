# SPDX-License-Identifier: Apache-2.0
"""asyncpg: subclasses of the same layout for one pool, its connections, and their proxies while checked out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from .measure import Measure, harmless, measured_method, statement_of

_METHODS = ("execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval")


def measure_asyncpg(pool: Any, measure: Measure) -> None:
    """Its objects take no attributes, but another class of the same layout. Its query loggers do not serve: they are
    taken away from a connection that is lost, before the query that lost it is reported."""
    kind = type(pool)
    measure.since = {}  # its places for connections take no weak references before 0.32, and live as long as the pool
    # Seconds spent on opening a connection in this acquire(), which may run in a task of its own.
    opening: ContextVar[list[float] | None] = ContextVar("sightline_opening", default=None)

    @harmless
    def publish() -> None:
        measure.publish(pool.get_size(), pool.get_idle_size(), pool.get_max_size())

    @harmless
    def become(target: Any, measured: Callable[[type, Measure], type]) -> None:
        target.__class__ = measured(type(target), measure)

    class MeasuredPool(kind):  # type: ignore[misc, valid-type]
        __slots__ = ()
        _sightline_measure = measure

        async def _get_new_connection(self) -> Any:
            started = perf_counter()
            try:
                connection = await super()._get_new_connection()
            except Exception:
                measure.not_connected()
                raise
            finally:
                spent = opening.get()
                if spent is not None:
                    spent.append(perf_counter() - started)
            become(connection, _measured_connection)
            return connection

        async def _acquire(self, timeout: float | None) -> Any:  # noqa: ASYNC109
            measure.asked()
            connection, timed_out = None, False
            spent: list[float] = []
            token = opening.set(spent)
            started = perf_counter()
            try:
                connection = await super()._acquire(timeout)
                become(connection, _measured_proxy)
                return connection
            except TimeoutError:
                timed_out = True
                raise
            finally:
                opening.reset(token)
                waited = perf_counter() - started - sum(spent)
                measure.answered(waited, connection and connection._holder, timed_out)
                publish()

        async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
            measure.returned(getattr(connection, "_holder", measure))
            if isinstance(connection, _Lent):
                connection.__class__ = type(connection).__mro__[2]  # what is given back must be the pool's own
            try:
                await super().release(connection, timeout=timeout)
            finally:
                publish()

    for holder in pool._holders:
        if holder._con is not None:
            become(holder._con, _measured_connection)
    pool.__class__ = MeasuredPool
    publish()


class _Lent:
    """Marks what stands for a connection until it is given back."""

    __slots__ = ()


@functools.cache
def _measured_connection(kind: type, measure: Measure) -> type:
    """The class of connections, with what runs a query measured, but for what they send when they are given back."""

    def measured(name: str) -> Callable[..., Any]:
        method = getattr(kind, name)
        query = measured_method(method, measure)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            internal = self.is_closed() or statement_of(args, kwargs) == self._reset_query
            return (method if internal else query)(self, *args, **kwargs)

        return call

    return type(kind)(kind.__name__, (kind,), {"__slots__": (), **{name: measured(name) for name in _METHODS}})


@functools.cache
def _measured_proxy(kind: type, measure: Measure) -> type:
    """The class of what stands for a connection. It refuses a query itself once asyncpg knows that it was lost."""

    def refused(name: str) -> Callable[..., Any]:
        method = getattr(kind, name)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self._con is None:
                measure.query(statement_of(args, kwargs), 0.0, ConnectionError())
            return method(self, *args, **kwargs)

        return call

    return type(kind)(kind.__name__, (_Lent, kind), {"__slots__": (), **{name: refused(name) for name in _METHODS}})
