# SPDX-License-Identifier: Apache-2.0
"""The SQLSTATE class of a driver's exception, the label `sqlstate_class`: one of SQLSTATE_CLASSES.

The class is the first two characters of the five-character code, such as 23 (integrity constraint violation) of 23505.
The same event has the same class with every driver. Errors of a lost or refused connection are 08 (connection
exception), because libpq has no code for some of them and asyncpg none for others. Errors that the driver raises by
itself, without the server, are `other`, even if asyncpg gives them a code.
"""

from __future__ import annotations

from typing import Any, Final

# https://www.postgresql.org/docs/current/errcodes-appendix.html; classes of the SQL standard are the same everywhere.
# fmt: off
SQLSTATE_CLASSES: Final = frozenset((
    "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26", "27",
    "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72",
    "F0", "HV", "P0", "XX", "other",
))
# fmt: on
OTHER: Final = "other"
CONNECTION: Final = "08"
# Classes that occur in practice: connection, data, integrity, transaction rollback, syntax or access, resources, object
# state, operator intervention.
_CLASSES: Final = (CONNECTION, "22", "23", "40", "42", "53", "55", "57", OTHER)
COMMON_ERRORS: Final = {
    "CONNECT": (CONNECTION,),
    "SELECT": tuple(name for name in _CLASSES if name != "23"),
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "OTHER"), _CLASSES),
    "COMMIT": (CONNECTION, "23", "40", "53", "57", OTHER),
}
# The server ends the session with these: shutdown, crash of another session, not up yet, database dropped, session,
# transaction and idle-in-transaction timeouts.
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04"})
_CALLERS: Final = frozenset({"ProgrammingError", "DataError", "NotSupportedError", "InterfaceError"})  # of PEP 249


def sqlstate_class(error: BaseException, lost: bool) -> str:
    """The class of an error. `lost`: whether SQLAlchemy considers the connection lost."""
    code = sqlstate_of(error)
    if lost or code in _LOST:
        return CONNECTION
    if code is None or not (reported_by_server(error) or code[:2] == CONNECTION):
        return OTHER
    return code[:2] if code[:2] in SQLSTATE_CLASSES else OTHER


def sqlstate_of(error: BaseException) -> str | None:
    """The code of a driver's exception: psycopg 3 and asyncpg (`sqlstate`), psycopg2 (`pgcode`), pg8000."""
    for carrier in (error, error.__cause__):  # SQLAlchemy copies it from most errors of asyncpg, but not from all
        for attribute in ("sqlstate", "pgcode"):
            value = getattr(carrier, attribute, None)
            if isinstance(value, str):
                return value
    value = _fields(error).get("C")
    return value if isinstance(value, str) else None


def reported_by_server(error: BaseException) -> bool:
    """Whether the server sent the error: then it has a severity, or with a driver that has no severities, a code."""
    if hasattr(error, "diag"):  # psycopg and psycopg2
        return error.diag.severity is not None
    cause = error.__cause__  # asyncpg's own error, if `error` is SQLAlchemy's translation
    for candidate in (error, cause):
        if hasattr(candidate, "severity"):
            return candidate.severity is not None  # type: ignore[union-attr]
    return sqlstate_of(error) is not None


def never_sent(error: BaseException) -> bool:
    """Whether the driver rejected a statement without sending it: a parameter it cannot adapt, a closed connection."""
    if not isinstance(error, Exception) or reported_by_server(error):  # the former is a cancelled task
        return False
    code = sqlstate_of(error)
    if code is not None:  # asyncpg's, which uses 08 for a connection that broke after the statement was sent
        return code[:2] != CONNECTION
    return any(kind.__name__ in _CALLERS for kind in type(error).__mro__)


def _fields(error: BaseException) -> dict[str, Any]:
    """The fields of the server's message, which is the only argument of pg8000's errors."""
    return error.args[0] if error.args and isinstance(error.args[0], dict) else {}
