"""Run other programs: return their output, raise one clear message if they fail."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from ops.errors import OpsError

COMPLAINT_LINES = 12
NO_SPACE = 64 << 10  # bytes


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program and return its output.

    Raises:
        OpsError: it fails; with the end of its complaint.
    """
    result = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        complaint = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise OpsError(f"`{' '.join(command)}` failed:\n" + "\n".join(complaint[-COMPLAINT_LINES:]))
    return result.stdout.strip()


def succeeds(command: list[str], environment: Mapping[str, str] | None = None, timeout: float | None = None) -> bool:
    """Whether the program exists and succeeds within `timeout` seconds."""
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def to_file(what: str, command: Sequence[str], output: Path, environment: Mapping[str, str], cwd: str | Path) -> None:
    """Run `command`, its output into the file `output`.

    Raises:
        OpsError: it fails; the message has `what`, and the reason.
        OSError: there is no space left for the file. (tar's own message is "Wrote only 8192 of 10240 bytes".)
    """
    with open(output, "wb") as file:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, env=environment, cwd=cwd
        )
        if result.returncode and shutil.disk_usage(output.parent).free < NO_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _check(what, result.returncode, result.stderr)


def feed(what: str, command: Sequence[str], stream: IO[bytes], environment: Mapping[str, str], cwd: str | Path) -> None:
    """Run `command` with `stream` as its input.

    Raises:
        OpsError: it fails; the message has `what`, and the reason.
    """
    with tempfile.TemporaryFile() as complaint:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=complaint, stderr=complaint, env=environment, cwd=cwd
        )
        with suppress(BrokenPipeError), process.stdin as pipe:  # type: ignore[union-attr]
            shutil.copyfileobj(stream, pipe, 1 << 20)  # a broken pipe: it ended early; its exit code is checked below
        process.wait()
        complaint.seek(0)
        _check(what, process.returncode, complaint.read())


def version(text: str) -> str:
    """The first version number in a program's output."""
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "unknown"


def _check(what: str, code: int, complaint: bytes) -> None:
    if code:
        lines = complaint.decode(errors="replace").strip().splitlines()[-2:]
        raise OpsError(f"{what} failed: {' '.join(lines) or f'exit code {code}'}")
