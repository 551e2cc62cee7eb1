# SPDX-License-Identifier: Apache-2.0
"""The operation of a SQL statement: `operation_of("WITH a AS (SELECT 1) DELETE FROM b")` is `DELETE`.

It is the first keyword after comments, parentheses and common table expressions, found in one pass over the text,
linear in its length, without a parser. The result is one of OPERATIONS, the values of the label `operation`.
"""

from __future__ import annotations

import re
from typing import Final

OPERATIONS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "CALL", "DDL", "SAVEPOINT", "OTHER")

_KEYWORDS: Final = {
    **{word: word for word in ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "CALL", "SAVEPOINT")},
    **dict.fromkeys(("VALUES", "TABLE"), "SELECT"),
    **dict.fromkeys(("CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE"), "DDL"),
    "RELEASE": "SAVEPOINT",
}
_AFTER_WITH: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE"})
_FIRST_WORD: Final = re.compile(r"[\s(]*([A-Za-z]+)")
_ROLLBACK_TO: Final = re.compile(r"\s*ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b", re.IGNORECASE)
_ENDING: Final = re.compile(
    r"\s*(?:(COMMIT|END)|(?:ROLLBACK|ABORT))(?:\s+(?:WORK|TRANSACTION))?(?:\s+AND\s+NO\s+CHAIN)?\s*;?\s*", re.IGNORECASE
)
_TOKEN: Final = re.compile(r"--|/\*|\*/|\$(?:[A-Za-z_]\w*)?\$|[Ee]'|['\"`(),]|[A-Za-z_][\w$]*")
_ESCAPED_END: Final = re.compile(r"(?:[^'\\]|\\.)*'", re.DOTALL)
_SCAN_LIMIT: Final = 20_000  # characters; a statement whose operation is not found by then is OTHER


def operation_of(statement: str) -> str:
    """One of OPERATIONS, by the first keyword of a statement after comments, parentheses and CTEs."""
    first = _FIRST_WORD.match(statement)
    word = first[1].upper() if first else "WITH"
    if word == "ROLLBACK":  # ROLLBACK TO [SAVEPOINT] name, or of a whole transaction
        return "SAVEPOINT" if _ROLLBACK_TO.match(statement) else "OTHER"
    if word != "WITH":
        return _KEYWORDS.get(word, "OTHER")
    return _KEYWORDS.get(_main_keyword(statement[:_SCAN_LIMIT]), "OTHER")


def ending_of(statement: str) -> str | None:
    """`COMMIT` or `ROLLBACK` if a statement is exactly that, in any spelling, and so ends the transaction."""
    found = _ENDING.fullmatch(statement)
    return None if found is None else "COMMIT" if found[1] else "ROLLBACK"


def _main_keyword(sql: str) -> str:
    """The first word of a statement or, if that is WITH, the keyword after its CTEs. Linear in the text's length."""
    depth = with_depth = position = 0
    names_follow = False  # after WITH, RECURSIVE and a comma comes a name, even if it is spelled like a keyword
    inside_with = False
    while token := _TOKEN.search(sql, position):
        text, position = token[0], token.end()
        if text == "--":
            position = sql.find("\n", position)
        elif text == "/*":
            position = _comment_end(sql, position)
        elif text in {"'", '"', "`"}:
            position = sql.find(text, position) + 1 or -1
            names_follow = False
        elif text in {"E'", "e'"}:
            end = _ESCAPED_END.match(sql, position)
            position = end.end() if end else -1
        elif text[0] == "$":
            position = sql.find(text, position) + len(text) if text in sql[position:] else -1
        elif text in {"(", ")"}:
            depth += 1 if text == "(" else -1
        elif text == ",":
            names_follow = depth == with_depth
        elif text != "*/":
            word = text.upper()
            if not inside_with:
                if word != "WITH":
                    return word
                inside_with, with_depth, names_follow = True, depth, True
            elif depth == with_depth:
                if not names_follow and word in _AFTER_WITH:
                    return word
                names_follow = names_follow and word == "RECURSIVE"
        if position < 0:
            break
    return ""


def _comment_end(sql: str, position: int) -> int:
    """The end of a block comment, which may contain others (PostgreSQL); -1 if it has none."""
    depth = 1
    while depth:
        opening, closing = sql.find("/*", position), sql.find("*/", position)
        if closing < 0:
            return -1
        nested = 0 <= opening < closing
        depth += 1 if nested else -1
        position = (opening if nested else closing) + 2
    return position
