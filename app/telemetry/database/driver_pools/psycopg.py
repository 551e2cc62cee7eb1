# SPDX-License-Identifier: Apache-2.0
"""psycopg_pool: getconn() and putconn() of one pool, and the cursors of its connections."""

from __future__ import annotations

import functools
import inspect
from time import perf_counter
from typing import Any

from .measure import Measure, harmless, measured_method


def measure_psycopg(pool: Any, measure: Measure) -> None:
    known_errors = pool.get_stats().get("connections_errors", 0)
    getconn, putconn = pool.getconn, pool.putconn

    @harmless
    def publish() -> None:
        nonlocal known_errors
        stats = pool.get_stats()
        measure.publish(stats["pool_size"], stats["pool_available"], stats["pool_max"])
        errors = stats.get("connections_errors", 0)  # of psycopg_pool's background workers, which open connections
        for _ in range(errors - known_errors):
            measure.not_connected()
        known_errors = errors

    @harmless
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
def _measured_cursor(cursor: type, measure: Measure) -> type:
    """The class of cursors, with `execute` and `executemany` measured."""

    methods = {name: measured_method(getattr(cursor, name), measure) for name in ("execute", "executemany")}
    return type(cursor.__name__, (_Measured, cursor), methods)
