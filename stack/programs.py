"""Running other programs: their output as a value, their failure as one clear message."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from native.errors import NativeError, refusal

COMPLAINT_LINES = 12
NO_DOCKER = "There is no `docker` on PATH: install Docker Engine with Compose, or use MODE=native."


def explanation(error: OSError) -> str:
    """What the operating system refused; for a program that can't be found, Docker's is the one that people lack."""
    no_docker = isinstance(error, FileNotFoundError) and Path(os.fsdecode(error.filename or "")).name == "docker"
    return NO_DOCKER if no_docker else refusal(error)


def run(command: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What the program prints. Raises NativeError with the end of its complaint if it fails."""
    result = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        complaint = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise NativeError(f"`{' '.join(command)}` failed:\n" + "\n".join(complaint[-COMPLAINT_LINES:]))
    return result.stdout.strip()


def succeeds(command: list[str], environment: Mapping[str, str] | None = None, timeout: float | None = None) -> bool:
    """Whether the program is there and ends well within `timeout` seconds."""
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
