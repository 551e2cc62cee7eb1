"""Whether containers can read what they mount."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from ops.errors import OpsError
from ops.paths import PROJECT

READABLE_TYPES = ("container_file_t", "container_ro_file_t")  # SELinux's, for what containers may read


def require_readable(places: Iterable[Path]) -> None:
    """Check that the containers' users, which have other ids, can read these files and folders.

    Raises:
        OpsError: a path is not accessible to others (a strict umask); the message shows how to change that.
    """

    def closed(path: Path) -> bool:
        needed = 0o5 if path.is_dir() else 0o4
        return path.exists() and path.stat().st_mode & needed != needed

    def seen(place: Path) -> Iterator[Path]:
        """The path and everything in it, except hidden files (such as an editor's), which no server reads."""
        yield place
        for path in place.rglob("*"):
            if not any(part.startswith(".") for part in path.relative_to(place).parts):
                yield path

    found = [os.path.relpath(place, PROJECT) for place in sorted(places) if any(map(closed, seen(place)))]
    if found:
        raise OpsError(
            f"The containers' users can't read {', '.join(found)}. This lets them: chmod -R go+rX {shlex.join(found)}"
        )


def require_labels(places: Iterable[Path], enforce: Path = Path("/sys/fs/selinux/enforce")) -> None:
    """Check that SELinux, where it is enforcing, lets containers read these files and folders.

    Raises:
        OpsError: the SELinux label of a path lets no container read it; the message shows how to change it.
    """
    if not enforce.exists() or enforce.read_text().strip() != "1":
        return
    found = [os.path.relpath(place, PROJECT) for place in sorted(places) if _selinux_type(place) not in READABLE_TYPES]
    if found:
        raise OpsError(
            f"SELinux lets no container read {', '.join(found)}. This lets them:"
            f" sudo chcon -R -t {READABLE_TYPES[0]} {shlex.join(found)}"
        )


def _selinux_type(place: Path) -> str:
    try:
        return os.getxattr(place, "security.selinux").decode().rstrip("\0").split(":")[2]
    except (OSError, IndexError):
        return ""
