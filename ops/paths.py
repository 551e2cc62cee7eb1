"""Native mode's folder, which git ignores; locks; folders that are replaced atomically."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops.console import log
from ops.errors import OpsError

LOCK_TIMEOUT = 600.0  # seconds
PROJECT = Path(__file__).resolve().parent.parent


def reachable(folder: Path) -> bool:
    """Whether every user of this machine may enter `folder` (or the nearest parent that exists)."""
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents) if parent.exists())


def gone(folder: Path) -> bool:
    """Whether the folder certainly does not exist: one that this user cannot access counts as existing."""
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _home() -> Path:
    """`.native/` in the project; for root in a folder closed to others (such as /root) one in /var/lib instead."""
    home = PROJECT / ".native"
    if os.geteuid() == 0 and not reachable(home):
        return Path("/var/lib/sightline") / str(PROJECT).strip("/").replace("/", "-")
    return home


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; another one waits, at most LOCK_TIMEOUT. Makes the lock's folder, if there is none.

    Raises:
        OpsError: the other process takes longer.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+") as lock:
        deadline = None
        while not _lock(lock):
            lock.seek(0)
            other = f"Another command (process {lock.read().strip() or 'unknown'}) is running"
            if deadline is None:
                log.info("%s: waiting until it ends", other)
                deadline = time.monotonic() + LOCK_TIMEOUT
            if time.monotonic() > deadline:
                raise OpsError(f"{other} for more than {LOCK_TIMEOUT / 60:g} minutes; try again when it has ended.")
            time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def made_as_a_whole(final: Path) -> Iterator[Path]:
    """A new folder to fill, which then replaces `final`; if that fails, `final` is unchanged."""
    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


HOME = _home()
