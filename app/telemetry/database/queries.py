# SPDX-License-Identifier: Apache-2.0
"""Queries: each execution of a cursor, measured where the engine's dialect passes it to the driver (`do_execute`...).

There are no listeners on the engine itself: with even one, SQLAlchemy prepares the arguments of all its events for
every statement, which costs more than this module.

The label `query_name` is the execution option of that name, if it is allowed; `operation` is derived from the text. The
histogram is cached by (query name, text), so that each text is analyzed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Final

from .connection import ACTIVE, AUTOCOMMIT, IDLE, ConnectionState, States
from .errors import OTHER
from .metrics import Number, PoolMetrics, warn_once
from .patches import Patches
from .sql import ending_of, operation_of
from .transactions import Transactions

CACHE_LIMIT: Final = 512  # cached statements per query name
CACHED_LENGTH: Final = 4_000  # characters


class Queries:
    def __init__(
        self, dialect: Any, metrics: PoolMetrics, states: States, transactions: Transactions, patches: Patches
    ) -> None:
        self._metrics = metrics
        self._states = states
        self._transactions = transactions
        # By query name (None if a statement has none), then by statement: the function that observes its duration.
        self.observers: dict[str | None, dict[str, Number]] = {None: {}}
        for name in ("do_execute", "do_executemany"):
            patches.put(dialect, name, self._measured(getattr(dialect, name)))
        name = "do_execute_no_params"
        patches.put(dialect, name, self._measured_without_parameters(getattr(dialect, name)))

    def allow(self, query_names: Iterable[str]) -> None:
        for name in query_names:
            self.observers.setdefault(name, {})

    def _measured(self, execute: Callable[..., None]) -> Callable[..., None]:
        """Wraps `execute`. It runs for every query, so it avoids function calls."""
        key, observers, unnamed = self._states.key, self.observers, self.observers[None]
        default_phase = self._transactions.default_phase

        def measured(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            try:
                state = context._dbapi_connection._connection_record.info[key]
                options = context.execution_options
                if state.phase is not ACTIVE:
                    if state.phase is IDLE and "isolation_level" not in options:
                        state.phase = default_phase
                    else:
                        self._transactions.begin(state, options)
            except Exception:
                state = self._late_state(context)
            if state is None:
                execute(cursor, statement, parameters, context)
                return
            started = perf_counter()
            try:
                execute(cursor, statement, parameters, context)
            except BaseException as error:
                self._executed(state, statement, context, perf_counter() - started, error)
                raise
            seconds = perf_counter() - started
            try:
                known = observers.get(options.get("query_name"), unnamed) if options else unnamed
                observe = known.get(statement)
                if observe is None or state.errors or state.phase is AUTOCOMMIT:
                    self._executed(state, statement, context, seconds, None)
                else:
                    observe(seconds)
            except Exception:  # a query name that is not hashable
                self._executed(state, statement, context, seconds, None)

        return measured

    def _measured_without_parameters(self, execute: Callable[..., None]) -> Callable[..., None]:
        measured = self._measured(lambda cursor, statement, parameters, context: execute(cursor, statement, context))
        return lambda cursor, statement, context=None: measured(cursor, statement, None, context)

    def _late_state(self, context: Any) -> ConnectionState | None:
        """The state of a connection that is detached or older than the instrumentation.

        None for the connection with which SQLAlchemy first inspects a server.
        """
        try:
            state = self._states.made(context._dbapi_connection)
            if state.phase is not ACTIVE:
                self._transactions.begin(state, context.execution_options)
        except NotImplementedError:  # the connection of that inspection has no `info`
            return None
        except Exception:
            warn_once("do_execute")
            return None
        return state

    def _executed(
        self, state: ConnectionState, statement: str, context: Any, seconds: float, error: BaseException | None
    ) -> None:
        try:
            self._observer(statement, context)(seconds)
            self._transactions.executed(state, statement, seconds, error)
        except Exception:
            warn_once("do_execute")

    def _observer(self, statement: str, context: Any) -> Number:
        name = context.execution_options.get("query_name")
        if not isinstance(name, str) or name not in self.observers:
            name = None
        known = self.observers[name]
        observe = known.get(statement)
        if observe is None:
            observe = self._metrics.duration(operation_of(statement), OTHER if name is None else name)
            # Not cached: bulk inserts, whose text is new each time, and statements that end a transaction.
            if len(statement) <= CACHED_LENGTH and not context.executemany and ending_of(statement) is None:
                if len(known) >= CACHE_LIMIT:
                    known.clear()
                known[statement] = observe
        return observe
