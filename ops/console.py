"""Output and questions to the user: the logger, steps, confirmation.

Progress goes to standard output, warnings and errors to standard error, without decoration.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ops.errors import OpsError

log = logging.getLogger("sightline.ops")


class _Output(io.FileIO):
    """A standard stream that may break (`| head`, a full disk) without ending the command."""

    broken: OSError | None = None  # the first error other than a closed pipe

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # others made a pipe non-blocking, and it is full
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno != errno.EPIPE:
                _Output.broken = _Output.broken or error
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())  # for the programs that it starts, too
            os.close(nothing)
            return len(data)


def use_streams_that_may_break() -> None:
    """Make standard input, output and error usable, whether they are closed now or break later."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would take its place
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  for as long as this process
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is getattr(sys, f"__{name}__"):  # else a test has it
            stream = io.BufferedWriter(_Output(number, "w", closefd=False))
            encoding, errors = (before.encoding, before.errors) if before else ("utf-8", "backslashreplace")
            setattr(sys, name, io.TextIOWrapper(stream, encoding, errors, line_buffering=True))  # in order in one log


def output_was_lost() -> bool:
    """Whether output could not be written, other than to a closed pipe; logs the reason."""
    sys.stdout.flush()
    if _Output.broken:
        log.error("The output could not be written: %s", _Output.broken.strerror)
    return bool(_Output.broken)


def configure() -> None:
    """Show what is logged; done once, by the command line."""
    use_streams_that_may_break()
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
