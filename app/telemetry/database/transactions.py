# SPDX-License-Identifier: Apache-2.0
"""Transactions that reached the database, by outcome.

    outcome         counted when
    commit          COMMIT succeeded, also one executed as a statement; an AUTOCOMMIT statement succeeded
    rollback        ROLLBACK; COMMIT of a transaction that PostgreSQL had aborted, which it answers with ROLLBACK; the
                    connection was lost or closed during the transaction; an AUTOCOMMIT statement failed in the server
    commit_failed   COMMIT raised an error

The state of a transaction is kept with its connection (connection.py). SQLAlchemy begins a transaction without calling
the driver, so here it begins with the first statement.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from .connection import ACTIVE, AUTOCOMMIT, ENDING, IDLE, ConnectionState, States
from .errors import never_sent, reported_by_server
from .metrics import Number, PoolMetrics, warn_once
from .patches import Patches
from .sql import ending_of

_IN_ERROR: Final = 3  # libpq's PQTRANS_INERROR, in psycopg and psycopg2


class Transactions:
    def __init__(self, dialect: Any, metrics: PoolMetrics, states: States, patches: Patches) -> None:
        self._dialect = dialect
        self._metrics = metrics
        self._states = states
        # From create_engine(isolation_level=...); a connection's execution option overrides it.
        default = getattr(dialect, "_on_connect_isolation_level", None)
        self.default_phase = _phase(default)
        for name, around in (
            ("do_commit", self._measured_commit),
            ("do_rollback", self._measured_rollback),
            ("do_prepare_twophase", self._measured_prepare_twophase),
            ("do_commit_twophase", self._measured_commit_twophase),
            ("do_rollback_twophase", self._measured_rollback_twophase),
        ):
            patches.put(dialect, name, around(getattr(dialect, name)))

    def begin(self, state: ConnectionState, options: Any) -> None:
        """A statement with these options is about to be sent, and no transaction has reached the server."""
        if state.phase is not ENDING:
            state.end()
            level = options.get("isolation_level")
            state.phase = self.default_phase if level is None else _phase(level)

    def executed(self, state: ConnectionState, statement: str, seconds: float, error: BaseException | None) -> None:
        """A statement has ended."""
        if error is None:
            ending = ending_of(statement) if state.phase is ACTIVE else None
            if ending == "COMMIT":
                aborted = state.refused and self._dialect.name == "postgresql"
                self._committed(state, self._metrics.rollbacks if aborted else self._metrics.commits, seconds)
            elif ending == "ROLLBACK":
                self.rolled_back(state)
            state.errors = state.refused = False  # the server would have rejected it in an aborted transaction
        if state.phase is AUTOCOMMIT:
            if error is None:
                self._metrics.commits(1)
            elif not never_sent(error):
                self._metrics.rollbacks(1)

    def failed(self, state: ConnectionState, error: BaseException) -> None:
        """A statement, or fetching its rows, has failed."""
        state.errors = True
        state.refused = state.refused or reported_by_server(error)

    def rolled_back(self, state: ConnectionState) -> None:
        state.end()
        try:
            self._metrics.rollbacks(1)
        except Exception:
            warn_once("do_rollback")

    def _measured_commit(self, do_commit: Callable[[Any], None]) -> Callable[[Any], None]:
        """Wraps `do_commit`. It runs for every transaction, so it avoids function calls."""
        states, metrics, commits = self._states, self._metrics, self._metrics.commits
        key, duration = states.key, metrics.commit_duration

        def commit(connection: Any) -> None:
            try:
                state = connection._connection_record.info[key]
            except Exception:
                state = states.of(connection)
            if state is not None:
                state.ending = "COMMIT"
            if state is None or state.phase is not ACTIVE:  # nothing was sent, or AUTOCOMMIT
                do_commit(connection)
                return
            outcome = metrics.rollbacks if state.errors and self._is_aborted(state, connection) else commits
            started = perf_counter()
            try:
                do_commit(connection)
            except BaseException:
                self._committed(state, metrics.commits_failed, perf_counter() - started)
                raise
            seconds = perf_counter() - started
            state.phase = IDLE
            state.errors = state.refused = False
            try:
                outcome(1.0)
                duration(seconds)
            except Exception:
                warn_once("do_commit")

        return commit

    def _committed(self, state: ConnectionState, outcome: Number, seconds: float) -> None:
        state.phase = IDLE
        state.errors = state.refused = False
        try:
            outcome(1.0)
            self._metrics.commit_duration(seconds)
        except Exception:
            warn_once("do_commit")

    def _is_aborted(self, state: ConnectionState, connection: Any) -> bool:
        """Whether PostgreSQL will answer COMMIT with ROLLBACK, which no driver reports as an error.

        psycopg and psycopg2 have the status. With other drivers it will if the server reported the error.
        """
        if self._dialect.name != "postgresql":
            return False
        try:
            driver = self._dialect.get_driver_connection(connection.dbapi_connection)
            return int(driver.info.transaction_status) == _IN_ERROR
        except Exception:
            return state.refused

    def _measured_rollback(self, do_rollback: Callable[[Any], None]) -> Callable[[Any], None]:
        states, key = self._states, self._states.key

        def rollback(connection: Any) -> None:
            try:
                state = connection._connection_record.info[key]
            except Exception:
                state = states.of(connection)
            if state is not None:
                state.ending = "ROLLBACK"
                if state.phase is ACTIVE:
                    self.rolled_back(state)
            do_rollback(connection)

        return rollback

    def _measured_prepare_twophase(self, do_prepare: Callable[..., None]) -> Callable[..., None]:
        def prepare(conn: Any, xid: Any) -> None:
            do_prepare(conn, xid)
            state = self._states.of(conn._dbapi_connection)
            if state is not None:
                state.end()  # the server keeps the transaction, independently of the connection

        return prepare

    def _measured_commit_twophase(self, do_commit: Callable[..., None]) -> Callable[..., None]:
        def commit(conn: Any, xid: Any, is_prepared: bool = True, recover: bool = False) -> None:
            state = self._end_twophase(conn, "COMMIT", is_prepared)
            started = perf_counter()
            try:
                do_commit(conn, xid, is_prepared=is_prepared, recover=recover)
            except BaseException:
                self._committed(state, self._metrics.commits_failed, perf_counter() - started)
                raise
            self._committed(state, self._metrics.commits, perf_counter() - started)

        return commit

    def _measured_rollback_twophase(self, do_rollback: Callable[..., None]) -> Callable[..., None]:
        def rollback(conn: Any, xid: Any, is_prepared: bool = True, recover: bool = False) -> None:
            state = self._end_twophase(conn, "ROLLBACK", is_prepared)
            try:
                do_rollback(conn, xid, is_prepared=is_prepared, recover=recover)
            finally:
                state.end()
            if is_prepared:
                self.rolled_back(state)

        return rollback

    def _end_twophase(self, conn: Any, ending: str, is_prepared: bool) -> ConnectionState:
        state = self._states.of(conn._dbapi_connection) or ConnectionState(self._states.key)
        if state.phase is ACTIVE and (is_prepared or ending == "ROLLBACK"):
            self.rolled_back(state)  # of a prepared one: the connection's other transaction, which must end first
        state.phase, state.ending = ENDING, ending
        return state


def _phase(isolation_level: object) -> str:
    return AUTOCOMMIT if str(isolation_level).upper() == "AUTOCOMMIT" else ACTIVE
