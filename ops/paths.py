"""Where native mode keeps things: all of it in one folder that git ignores."""

from __future__ import annotations

import os
import tempfile
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


HOME = _home()
