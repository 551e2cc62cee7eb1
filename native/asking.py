"""Nothing is lost unasked. Standard library only: Docker mode asks, too."""

from __future__ import annotations

from native.errors import NativeError


def confirm(question: str, confirmed: bool) -> None:
    """Ask on the terminal unless `confirmed`. Raises NativeError for any answer but yes, also for none."""
    if confirmed:
        return
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
        print()
    if answer.strip().lower() not in ("y", "yes"):
        raise NativeError("Nothing was changed. CONFIRM=1 answers yes.")
