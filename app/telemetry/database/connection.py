# SPDX-License-Identifier: Apache-2.0
"""The state of one DBAPI connection, kept in its SQLAlchemy `info` dictionary.

phase    IDLE -> ACTIVE (a statement was sent) -> IDLE (commit, rollback, connection lost)
         AUTOCOMMIT: each statement is a transaction; ENDING: the end of a two-phase transaction is being sent
errors   a statement failed since the transaction began, or since the last rollback to a savepoint
refused  the server reported one of these errors, so PostgreSQL now accepts only ROLLBACK
ending   COMMIT or ROLLBACK, from when it is sent until the next transaction: the operation of an error in between
since    perf_counter() when the connection was checked out of the pool
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
        """The transaction has ended: reset its state."""
        self.phase = IDLE
        self.errors = self.refused = False


class States:
    """The connection states of one instrumentation. A later one of the same engine has its own."""

    def __init__(self) -> None:
        self.key = object()  # in `info`; also stands for the engine

    def of(self, connection: Any) -> ConnectionState | None:
        """The state of a connection in use; None if it has none, as when SQLAlchemy first inspects a server."""
        try:
            return connection.info.get(self.key)  # type: ignore[no-any-return]
        except Exception:  # an invalidated connection, and that of the inspection, have no `info`
            return None

    def made(self, entry: Any) -> ConnectionState:
        """The same, created if it is missing."""
        state = entry.info.get(self.key)
        if state is None:
            state = entry.info[self.key] = ConnectionState(self.key)
        return state  # type: ignore[no-any-return]
