"""A copy of the project, for tests that change its files or use it as a new user does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.packages import NEEDED, POSTGRES
from ops.paths import HOME, PROJECT
from ops.programs import find
from tests.alertmanager.config import CONFIG
from tests.running import folder

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".native", ".stack", ".env", "__pycache__", ".*_cache", ".hypothesis", "backups", "reports"
)  # fmt: skip


def copy_project(folder: Path) -> Path:
    """Make `folder` a copy without anything that was made here; it uses our virtual environment and our servers.

    It notifies nobody, whichever receivers are switched on here: it has no secrets of theirs.
    """

    def ignored(where: str, names: list[str]) -> set[str]:  # the other folders of this name hold a .gitignore
        return NOT_COPIED(where, names) | ({"secrets"} if Path(where) == PROJECT else set())

    shutil.copytree(PROJECT, folder, ignore=ignored)
    (folder / "alertmanager" / "alertmanager.yml").write_text(CONFIG)
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    find(*NEEDED, *POSTGRES)
    (folder / ".native").mkdir(mode=0o711)
    if (HOME / "packages").exists():
        (folder / ".native" / "packages").symlink_to(HOME / "packages")
    return folder


@contextmanager
def project_copy() -> Iterator[Path]:
    """A copy for a while, in a folder that all users may enter: elsewhere, root would unpack the servers once more."""
    with folder("copy") as parent:
        parent.chmod(0o711)
        yield copy_project(parent / "sightline")
