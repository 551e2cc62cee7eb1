"""One registry for one process or many."""

from pathlib import Path


def install() -> None:
    """Put the storage under prometheus_client. To be called before any metric exists."""


def directory() -> Path | None:
    """The private folder (0700) that the workers of this service share; None when alone in one process."""
    return None


def worker() -> int:
    """This worker's stable slot: 0, 1, 2... taken over by its successor when it dies; 0 when alone."""
    return 0
