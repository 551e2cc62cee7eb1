# SPDX-License-Identifier: Apache-2.0
"""The state of one DBAPI connection, kept in SQLAlchemy's `info` of it.

phase    IDLE -> ACTIVE (a statement was sent) -> IDLE (commit, rollback, lost)
         AUTOCOMMIT: each statement is a transaction; ENDING: what ends a two-phase transaction is being sent
errors   a statement failed since the transaction, or the last savepoint rolled back to, began
refused  the server reported one of these errors, so PostgreSQL takes nothing but ROLLBACK by now
ending   COMMIT or ROLLBACK from when that is sent until the next transaction; the operation of an error there
since    perf_counter() of when the connection was taken from the pool
"""

from __future__ import annotations

from typing import Any, Final

IDLE: Final = "idle"
ACTIVE: Final = "active"
AUTOCOMMIT: Final = "autocommit"
ENDING: Final = "ending"


class ConnectionState:
    __slots__ = ("ending", "errors", "owner", "phase", "refused", "since")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.phase = IDLE
        self.errors = self.refused = False
        self.ending = "OTHER"
        self.since = 0.0

    def end(self) -> None:
        """The transaction has ended, and all that was known of it."""
        self.phase = IDLE
        self.errors = self.refused = False


class States:
    """The states of one instrumentation's connections. Another one of the same engine, later, has its own."""

    def __init__(self) -> None:
        self.key = object()  # in `info`; also stands for the engine

    def of(self, connection: Any) -> ConnectionState | None:
        """Of a connection in use; None where none was made, as for SQLAlchemy's own look at a new server."""
        try:
            return connection.info.get(self.key)  # type: ignore[no-any-return]
        except Exception:  # an invalidated one, and the one of that look, have no `info`
            return None

    def made(self, entry: Any) -> ConnectionState:
        """The same, made where it is missing."""
        state = entry.info.get(self.key)
        if state is None:
            state = entry.info[self.key] = ConnectionState(self.key)
        return state  # type: ignore[no-any-return]
