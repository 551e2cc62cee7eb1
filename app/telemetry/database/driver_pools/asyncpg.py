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
    """Replace the classes of the pool and its connections, as their instances allow no new attributes.

    asyncpg's query loggers are not usable: they are removed from a lost connection before its last query is reported.
    """
    kind = type(pool)
    measure.since = {}  # holders, its keys, live as long as the pool, and before 0.32 allow no weak references
    # Seconds spent opening a connection in this acquire(), which may run in a separate task.
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
                connection.__class__ = type(connection).__mro__[2]  # the pool accepts only its own class
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
    """Marks the proxy of a connection until it is returned."""

    __slots__ = ()


@functools.cache
def _measured_connection(kind: type, measure: Measure) -> type:
    """A subclass of the connection class that measures queries, except those sent when a connection is returned."""

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
    """A subclass of the connection's proxy class that counts queries it rejects because the connection was lost."""

    def refused(name: str) -> Callable[..., Any]:
        method = getattr(kind, name)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self._con is None:
                measure.query(statement_of(args, kwargs), 0.0, ConnectionError())
            return method(self, *args, **kwargs)

        return call

    return type(kind)(kind.__name__, (_Lent, kind), {"__slots__": (), **{name: refused(name) for name in _METHODS}})
