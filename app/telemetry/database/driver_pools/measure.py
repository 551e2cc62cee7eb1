# SPDX-License-Identifier: Apache-2.0
"""Shared by the pools of all drivers: their metrics, and how a method that runs a query is measured."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, ParamSpec

from .. import metrics
from ..errors import CONNECTION, OTHER, reported_by_server, sqlstate_class
from ..metrics import PoolMetrics, pool_metrics, warn_once
from ..sql import operation_of

P = ParamSpec("P")
_query_name: ContextVar[str] = ContextVar("sightline_query_name", default=OTHER)


@contextmanager
def query_name(name: str) -> Iterator[None]:
    """Set the label `query_name` for the queries of this block; names that the pool does not allow become `other`."""
    token = _query_name.set(name)
    try:
        yield
    finally:
        _query_name.reset(token)


def harmless(function: Callable[P, None]) -> Callable[P, None]:
    """Log errors of the measurement, so that they never reach the application."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            warn_once(function.__qualname__)

    return call


class Measure:
    """The metrics of one pool of either driver. `connection` is any object that identifies one."""

    def __init__(self, name: str, query_names: frozenset[str]) -> None:
        self._name = name
        self._query_names = query_names
        self.metrics: PoolMetrics = pool_metrics(name)
        self.since: MutableMapping[Any, float] = weakref.WeakKeyDictionary()

    @harmless
    def publish(self, size: int, idle: int, limit: int) -> None:
        metrics.POOL_CONNECTIONS.labels(self._name, "used").set(size - idle)
        metrics.POOL_CONNECTIONS.labels(self._name, "idle").set(idle)
        metrics.POOL_CONNECTIONS_MAX.labels(self._name).set(limit)

    @harmless
    def asked(self) -> None:
        self.metrics.pending(1)

    @harmless
    def answered(self, waited: float, connection: Any, timed_out: bool) -> None:
        self.metrics.pending(-1)
        self.metrics.wait(max(0.0, waited))
        if timed_out:
            self.metrics.timeouts(1)
        if connection is not None:
            self.since[connection] = perf_counter()

    @harmless
    def returned(self, connection: Any) -> None:
        since = self.since.pop(connection, None)
        if since is not None:
            self.metrics.use(perf_counter() - since)

    @harmless
    def not_connected(self) -> None:
        self.metrics.error("CONNECT", CONNECTION)

    @harmless
    def query(self, statement: object, seconds: float, error: BaseException | None) -> None:
        operation = operation_of(_text(statement))
        name = _query_name.get()
        self.metrics.duration(operation, name if name in self._query_names else OTHER)(seconds)
        if isinstance(error, Exception):
            # InternalClientError: asyncpg has read the server's last message, but not yet the end of the connection.
            lost = isinstance(error, OSError) or type(error).__name__ == "InternalClientError"
            lost = lost or ("closed" in str(error) and not reported_by_server(error))
            self.metrics.error(operation, sqlstate_class(error, lost))


def _text(statement: object) -> str:
    """The text of a statement given as str, bytes, or a Composable object of psycopg."""
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode("utf-8", "replace")
    as_string = getattr(statement, "as_string", None)
    return as_string(None) if as_string is not None else ""


def measured_method(method: Callable[..., Any], measure: Measure) -> Callable[..., Any]:
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
                measure.query(statement_of(args, kwargs), perf_counter() - started, failure)
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
                measure.query(statement_of(args, kwargs), perf_counter() - started, failure)

    return call


def statement_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    return args[0] if args else kwargs.get("query", kwargs.get("command"))
