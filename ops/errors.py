"""Errors that are printed as one line: what is wrong, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

NO_DOCKER = "There is no `docker` on PATH: install Docker Engine with Compose, or use MODE=native."


class OpsError(Exception):
    """An error that the user can fix; printed without a traceback, exit code 1."""


def refusal(error: OSError) -> str:
    """Describe an error of the operating system: a full disk, another user's folder, a missing program."""
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and Path(os.fsdecode(error.filename or "")).name == "docker":
        return NO_DOCKER
    return f"{error.filename}: {reason}" if error.filename else reason
