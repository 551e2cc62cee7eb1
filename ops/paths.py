"""Where native mode keeps things, all of it in one folder that git ignores; locks, and folders made as a whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def reachable(folder: Path) -> bool:
    """Whether every user of this machine may enter `folder` (or the nearest parent that exists)."""
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents) if parent.exists())


def _home() -> Path:
    """`.native/` in the project; for root in a folder closed to others (such as /root) one in /var/lib instead."""
    home = PROJECT / ".native"
    if os.geteuid() == 0 and not reachable(home):
        return Path("/var/lib/sightline") / str(PROJECT).strip("/").replace("/", "-")
    return home


def temporary_folder(prefix: str) -> Path:
    """A new private folder that root can hand to the unprivileged user, wherever TMPDIR points."""
    parent = Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent if reachable(parent) else "/var/tmp"))  # noqa: S108


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; another one waits. Makes the lock's folder, if there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def made_as_a_whole(final: Path) -> Iterator[Path]:
    """A new folder to fill, which then takes the place of `final`; if filling it fails, `final` stays as it was."""
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
