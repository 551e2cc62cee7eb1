# SPDX-License-Identifier: Apache-2.0
"""Instrument an engine: assemble the parts, keep one handle per engine, count its errors."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, exc

from .connection import ACTIVE, States
from .errors import OTHER, sqlstate_class
from .metrics import PoolMetrics, pool_metrics, warn_once
from .patches import Patches
from .pool import PoolWatcher
from .queries import Queries
from .sql import operation_of
from .transactions import Transactions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_handles: weakref.WeakValueDictionary[int, Instrumentation] = weakref.WeakValueDictionary()


def instrument_engine(
    engine: Engine | AsyncEngine, pool: str = "main", query_names: Iterable[str] = ()
) -> Instrumentation:
    """Measure the queries, transactions and pool of `engine` from now on, also after `engine.dispose()`.

    A second call for the same engine returns the same handle and may allow more `query_names`.

    Args:
        engine: an Engine or AsyncEngine.
        pool: the label `pool`, different for every engine of a process; engines with the same name are added up.
        query_names: the allowed values of the label `query_name`; all other queries are `other`.

    Raises:
        ValueError: the engine is already instrumented under another `pool` name.
        TypeError: `engine` is not an engine, or `query_names` is a single string.
    """
    # Of an AsyncEngine. No isinstance(): importing sqlalchemy.ext.asyncio needs greenlet, which a synchronous service
    # does not have.
    root = getattr(engine, "sync_engine", engine)
    root = getattr(root, "_proxied", root)  # engine.execution_options() returns a view of the engine that owns the pool
    if not isinstance(root, Engine):
        raise TypeError(f"expected SQLAlchemy's Engine or AsyncEngine, not a {type(engine).__name__}")
    names = _names(query_names)
    handle = _handles.get(id(root))
    if handle is None or not handle.watches(root):
        handle = _handles[id(root)] = Instrumentation(root, pool_metrics(pool))
    elif handle.pool != pool:
        raise ValueError(f"this engine is already instrumented as pool {handle.pool!r}, not {pool!r}")
    handle.allow(names)
    return handle


def _names(query_names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(query_names, str):  # otherwise its letters would be the names
        raise TypeError(f"query_names must be a list of names, such as ({query_names!r},)")
    return tuple(query_names)


class Instrumentation:
    """The handle of one instrumented engine."""

    def __init__(self, engine: Engine, metrics: PoolMetrics) -> None:
        self.pool = metrics.pool
        self._engine = engine
        self._metrics = metrics
        self._states = States()
        self._patches = patches = Patches()
        self._transactions = Transactions(engine.dialect, metrics, self._states, patches)
        self._queries = Queries(engine.dialect, metrics, self._states, self._transactions, patches)
        self._pool = PoolWatcher(engine.pool, metrics, self._states, patches, self._transactions.rolled_back)
        patches.listen(engine.dialect, "handle_error", self._on_handle_error)
        weakref.finalize(engine, metrics.connections.remove, self._states.key).atexit = False

    def watches(self, engine: Engine) -> bool:
        return self._engine is engine

    def allow(self, query_names: Iterable[str]) -> None:
        """Allow more values of the label `query_name`.

        Raises:
            TypeError: `query_names` is a single string.
        """
        self._queries.allow(_names(query_names))

    def uninstrument(self) -> None:
        """Stop measuring and restore the engine. Counters keep their values; the gauges exclude this engine."""
        self._patches.undo()
        self._metrics.connections.remove(self._states.key)
        _handles.pop(id(self._engine), None)

    def _on_handle_error(self, context: Any) -> None:
        try:
            if context.connection is not None:  # otherwise connecting failed, which the pool's part counts
                self._failed(context)
        except Exception:
            warn_once("the event handle_error")

    def _failed(self, context: Any) -> None:
        error = context.original_exception
        state = self._states.of(context.connection._dbapi_connection)
        in_transaction = state is not None and state.phase is ACTIVE
        # Fetching has no statement of its own.
        statement = context.statement or getattr(context.execution_context, "statement", None)
        if state is not None and statement is not None:
            self._transactions.failed(state, error)
        if state is not None and in_transaction and context.is_disconnect:
            self._transactions.rolled_back(state)
        # For fetches of a server-side cursor of asyncpg, SQLAlchemy passes on the driver's own errors.
        if not isinstance(context.sqlalchemy_exception, exc.DBAPIError) and sqlstate_class(error, lost=False) == OTHER:
            return  # not an error of the database or its driver: a cancelled task, missing parameters
        if statement is not None:
            operation = operation_of(statement)
        else:
            operation = "OTHER" if state is None or in_transaction else state.ending
        self._metrics.error(operation, sqlstate_class(error, context.is_disconnect))
