"""Output and questions to the user: the logger, steps, confirmation.

Progress goes to standard output, warnings and errors to standard error, without decoration.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ops.errors import OpsError

log = logging.getLogger("sightline.ops")


def configure() -> None:
    """Show what is logged; done once, by the command line."""
    progress, problems = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    progress.addFilter(lambda record: record.levelno < logging.WARNING)
    problems.setLevel(logging.WARNING)
    log.handlers = [progress, problems]
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def step(title: str) -> Iterator[None]:
    """Log `title` when the step begins, and its duration when it succeeds."""
    log.info("==> %s", title)
    started = time.monotonic()
    yield
    log.info("    done in %.1f s", time.monotonic() - started)


def confirm(question: str, confirmed: bool) -> None:
    """Ask on the terminal unless `confirmed`.

    Raises:
        OpsError: the answer is not yes, or there is none.
    """
    if confirmed:
        return
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
        print()
    if answer.strip().lower() not in ("y", "yes"):
        raise OpsError("Nothing was changed. CONFIRM=1 answers yes.")
