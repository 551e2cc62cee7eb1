"""The text of the driver's errors, for log lines and messages."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The driver's message in one line; libpq never includes a password."""
    return " ".join(str(getattr(error, "orig", error)).split()).rstrip(".")
