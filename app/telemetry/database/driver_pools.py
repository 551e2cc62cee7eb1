# SPDX-License-Identifier: Apache-2.0
"""The pools of psycopg_pool and asyncpg, for services without SQLAlchemy: connections, waits, and queries by name.

    pool = instrument_pool(ConnectionPool(...), "main", query_names=("list_items",))     # or AsyncConnectionPool
    pool = instrument_pool(await asyncpg.create_pool(...), "main", query_names=("list_items",))

    with query_name("list_items"):                          # optional, for a query of its own
        rows = await connection.fetch("SELECT ...")

The metrics are those of metrics.py; give every pool of a process a name of its own. What differs from an engine:

- Not counted: transactions, which neither driver reports; prepared statements of asyncpg; COPY; server-side cursors;
  psycopg's stream().
- The wait is the time until a connection was there. psycopg_pool opens connections in the background, so that waiting
  for one that is being opened is waiting; with asyncpg the opening is left out.
- The gauges are as of the last connection that was taken or given back; idle ones come and go without that.
- asyncpg's BEGIN and COMMIT are queries (`OTHER`); what it sends when a connection is given back is none.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from . import metrics
from .errors import CONNECTION, OTHER, reported_by_server, sqlstate_class
from .metrics import PoolMetrics, pool_metrics, warn_once
from .sql import operation_of

P = ParamSpec("P")
Pool = TypeVar("Pool")
_query_name: ContextVar[str] = ContextVar("sightline_query_name", default=OTHER)


@contextmanager
def query_name(name: str) -> Iterator[None]:
    """Name the queries of this block; names that the pool does not allow are `other`."""
    token = _query_name.set(name)
    try:
        yield
    finally:
        _query_name.reset(token)


def instrument_pool(pool: Pool, name: str = "main", query_names: Iterable[str] = ()) -> Pool:
    """Measure a pool from now on, and return it. An asyncpg pool must be initialised: `await create_pool()`.

    Raises:
        TypeError: for what is no pool of psycopg_pool or asyncpg, and for a single query name where a list belongs.
    """
    if isinstance(query_names, str):  # its letters would be the names
        raise TypeError(f"query_names is a list of names: ({query_names!r},)")
    packages = {cls.__module__.partition(".")[0] for cls in type(pool).__mro__}
    measure = _measure_psycopg if "psycopg_pool" in packages else _measure_asyncpg if "asyncpg" in packages else None
    if measure is None:
        raise TypeError(f"expected a pool of psycopg_pool or asyncpg, not a {type(pool).__name__}")
    if not hasattr(pool, "_sightline_measure"):
        measure(pool, _Measure(name, frozenset(query_names)))
    return pool


def _harmless(function: Callable[P, None]) -> Callable[P, None]:
    """A fault of the measurement is logged, and none of who takes a connection."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            warn_once(function.__qualname__)

    return call


class _Measure:
    """What both pools have in common. `connection` is what stands for one."""

    def __init__(self, name: str, query_names: frozenset[str]) -> None:
        self._name = name
        self._query_names = query_names
        self.metrics: PoolMetrics = pool_metrics(name)
        self.since: MutableMapping[Any, float] = weakref.WeakKeyDictionary()

    @_harmless
    def publish(self, size: int, idle: int, limit: int) -> None:
        metrics.POOL_CONNECTIONS.labels(self._name, "used").set(size - idle)
        metrics.POOL_CONNECTIONS.labels(self._name, "idle").set(idle)
        metrics.POOL_CONNECTIONS_MAX.labels(self._name).set(limit)

    @_harmless
    def asked(self) -> None:
        self.metrics.pending(1)

    @_harmless
    def answered(self, waited: float, connection: Any, timed_out: bool) -> None:
        self.metrics.pending(-1)
        self.metrics.wait(max(0.0, waited))
        if timed_out:
            self.metrics.timeouts(1)
        if connection is not None:
            self.since[connection] = perf_counter()

    @_harmless
    def returned(self, connection: Any) -> None:
        since = self.since.pop(connection, None)
        if since is not None:
            self.metrics.use(perf_counter() - since)

    @_harmless
    def not_connected(self) -> None:
        self.metrics.error("CONNECT", CONNECTION)

    @_harmless
    def query(self, statement: object, seconds: float, error: BaseException | None) -> None:
        operation = operation_of(_text(statement))
        name = _query_name.get()
        self.metrics.duration(operation, name if name in self._query_names else OTHER)(seconds)
        if isinstance(error, Exception):
            # InternalClientError: asyncpg has read the server's farewell, and not yet the end of the connection.
            lost = isinstance(error, OSError) or type(error).__name__ == "InternalClientError"
            lost = lost or ("closed" in str(error) and not reported_by_server(error))
            self.metrics.error(operation, sqlstate_class(error, lost))


def _text(statement: object) -> str:
    """Of a text, of bytes, and of psycopg's objects, which are composed of texts."""
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode("utf-8", "replace")
    as_string = getattr(statement, "as_string", None)
    return as_string(None) if as_string is not None else ""


def _measured_method(method: Callable[..., Any], measure: _Measure) -> Callable[..., Any]:
    """A method that sends its first argument, measured as a query."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            started, failure = perf_counter(), None
            try:
                return await method(self, *args, **kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                measure.query(_statement(args, kwargs), perf_counter() - started, failure)
    else:

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            started, failure = perf_counter(), None
            try:
                return method(self, *args, **kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                measure.query(_statement(args, kwargs), perf_counter() - started, failure)

    return call


def _statement(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    return args[0] if args else kwargs.get("query", kwargs.get("command"))


# psycopg_pool ---------------------------------------------------------------------------------------------------------


def _measure_psycopg(pool: Any, measure: _Measure) -> None:
    known_errors = pool.get_stats().get("connections_errors", 0)
    getconn, putconn = pool.getconn, pool.putconn

    @_harmless
    def publish() -> None:
        nonlocal known_errors
        stats = pool.get_stats()
        measure.publish(stats["pool_size"], stats["pool_available"], stats["pool_max"])
        errors = stats.get("connections_errors", 0)  # of the workers that open connections
        for _ in range(errors - known_errors):
            measure.not_connected()
        known_errors = errors

    @_harmless
    def answered(started: float, connection: Any, error: BaseException | None) -> None:
        timed_out = type(error).__name__ in {"PoolTimeout", "TooManyRequests"}
        measure.answered(perf_counter() - started, connection, timed_out)
        publish()
        if connection is not None and not issubclass(connection.cursor_factory, _Measured):
            connection.cursor_factory = _measured_cursor(connection.cursor_factory, measure)

    if inspect.iscoroutinefunction(getconn):

        async def async_get(timeout: float | None = None) -> Any:  # noqa: ASYNC109
            measure.asked()
            connection, failure, started = None, None, perf_counter()
            try:
                connection = await getconn(timeout)
                return connection
            except BaseException as error:
                failure = error
                raise
            finally:
                answered(started, connection, failure)

        async def async_put(connection: Any) -> None:
            measure.returned(connection)
            await putconn(connection)
            publish()

        pool.getconn, pool.putconn = async_get, async_put
    else:

        def get(timeout: float | None = None) -> Any:
            measure.asked()
            connection, failure, started = None, None, perf_counter()
            try:
                connection = getconn(timeout)
                return connection
            except BaseException as error:
                failure = error
                raise
            finally:
                answered(started, connection, failure)

        def put(connection: Any) -> None:
            measure.returned(connection)
            putconn(connection)
            publish()

        pool.getconn, pool.putconn = get, put
    pool._sightline_measure = measure
    publish()


class _Measured:
    """Marks the cursors that are measured."""


@functools.cache
def _measured_cursor(cursor: type, measure: _Measure) -> type:
    """The class of cursors, with `execute` and `executemany` measured."""

    methods = {name: _measured_method(getattr(cursor, name), measure) for name in ("execute", "executemany")}
    return type(cursor.__name__, (_Measured, cursor), methods)


# asyncpg --------------------------------------------------------------------------------------------------------------

_METHODS = ("execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval")


def _measure_asyncpg(pool: Any, measure: _Measure) -> None:
    """Its objects take no attributes, but another class of the same layout. Its query loggers do not serve: they are
    taken away from a connection that is lost, before the query that lost it is reported."""
    kind = type(pool)
    measure.since = {}  # its places for connections take no weak references before 0.32, and live as long as the pool
    # Seconds spent on opening a connection in this acquire(), which may run in a task of its own.
    opening: ContextVar[list[float] | None] = ContextVar("sightline_opening", default=None)

    @_harmless
    def publish() -> None:
        measure.publish(pool.get_size(), pool.get_idle_size(), pool.get_max_size())

    @_harmless
    def become(target: Any, measured: Callable[[type, _Measure], type]) -> None:
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
def _measured_connection(kind: type, measure: _Measure) -> type:
    """The class of connections, with what runs a query measured, but for what they send when they are given back."""

    def measured(name: str) -> Callable[..., Any]:
        method = getattr(kind, name)
        measured_method = _measured_method(method, measure)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            internal = self.is_closed() or _statement(args, kwargs) == self._reset_query
            return (method if internal else measured_method)(self, *args, **kwargs)

        return call

    return type(kind)(kind.__name__, (kind,), {"__slots__": (), **{name: measured(name) for name in _METHODS}})


@functools.cache
def _measured_proxy(kind: type, measure: _Measure) -> type:
    """The class of what stands for a connection. It refuses a query itself once asyncpg knows that it was lost."""

    def refused(name: str) -> Callable[..., Any]:
        method = getattr(kind, name)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self._con is None:
                measure.query(_statement(args, kwargs), 0.0, ConnectionError())
            return method(self, *args, **kwargs)

        return call

    return type(kind)(kind.__name__, (_Lent, kind), {"__slots__": (), **{name: refused(name) for name in _METHODS}})
