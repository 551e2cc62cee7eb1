"""The archive of a backup: a tar file (0600) of a manifest and these parts, each with its checksum in the manifest.

    database.dump                               the database `sightline`, by pg_dump in its custom format
    prometheus.tar, alertmanager.tar, grafana.tar   the servers' folders, of those that the stack has
    grafana_secret_key                          what Grafana encrypts stored credentials with
    postgres.tar                                instead of the dump: PostgreSQL's folder as it is

A restore writes an archive of the last kind before it changes anything: it works in whatever state the database is.
Archives contain no passwords: the roles of a restored PostgreSQL get the current secrets. Only Grafana's key is
included with its data, because with another key Grafana can neither read stored credentials nor store new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ops import secrets
from ops.errors import OpsError
from ops.settings import MODES

FORMAT = 1
MANIFEST = "manifest.json"
DUMP = "database.dump"
FOLDERS = ("prometheus", "alertmanager", "grafana")  # the servers whose data are files to copy
KEY = secrets.GRAFANA_KEY  # archives of older versions have none
DATABASES = {DUMP, "postgres.tar"}
MADE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
LIMIT = 1 << 20  # bytes of a manifest that can be ours


def write(archive: Path, work: Path, made: datetime, mode: str, versions: Mapping[str, str]) -> None:
    """Write all files in the folder `work`, on the same file system, to `archive`, atomically.

    The parts are removed from `work`, so that the disk never has to store everything twice.

    Raises:
        OSError: there is not enough space, or no permission to write.
    """
    parts = sorted(work.iterdir())
    manifest = {
        "sightline": FORMAT,
        "made": f"{made:%Y-%m-%d %H:%M:%S} UTC",
        "mode": mode,
        "versions": versions,
        "parts": {part.name: {"bytes": part.stat().st_size, "sha256": _digest(part)} for part in parts},
    }
    (work / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    partial = work / "archive"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for each in (work / MANIFEST, *parts):
                tar.add(each, each.name, filter=_anonymous)
                each.unlink()
        os.fsync(file.fileno())
    partial.rename(archive)


@contextmanager
def opened(archive: Path, folder: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, Any]]]:
    """An archive, after comparing every part with its checksum.

    Checksums detect damage. They are not a signature: whoever can write an archive can put anything into it.

    Raises:
        OpsError: a part is damaged.
    """
    try:
        tar = tarfile.open(archive, "r:")  # noqa: SIM115  closed below, behind the checks
    except FileNotFoundError:
        raise OpsError(f"{archive} does not exist. {newest(folder)}") from None
    except (OSError, tarfile.TarError) as error:
        raise OpsError(f"{archive} is not a backup of this stack: {error}") from None
    with tar:
        try:
            manifest = _manifest(tar)
            for name, facts in manifest["parts"].items():
                if _digest(part(tar, name)) != facts["sha256"]:
                    raise OpsError(f"{archive} is damaged: the checksum of {name} does not match. Use another backup.")
                _read(part(tar, name), name)
            _read_to_the_end(tar)
        except (OSError, EOFError, tarfile.TarError, KeyError, TypeError, AttributeError, ValueError):
            raise OpsError(f"{archive} is damaged, or not a backup of this stack. {newest(folder)}") from None
        yield tar, manifest


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    with part(tar, MANIFEST) as file:
        manifest: dict[str, Any] = json.loads(file.read(LIMIT))
    parts = set(manifest["parts"])
    known = {KEY, *DATABASES, *(f"{name}.tar" for name in FOLDERS)}
    if manifest["sightline"] != FORMAT or not parts <= known or len(parts & DATABASES) != 1:
        raise ValueError("unknown format")
    if (
        not re.fullmatch(MADE, manifest["made"])
        or manifest["mode"] not in MODES
        or type(manifest["versions"]) is not dict
    ):
        raise ValueError("incomplete")
    return manifest


def _read(content: IO[bytes], name: str) -> None:
    """Read what a restore will read, as far as possible before anything is replaced.

    Raises:
        ValueError, TarError: the content does not match the part's name.
    """
    if name == KEY:
        content.read(LIMIT).decode()
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=content, mode="r:") as files:
            _read_to_the_end(files)


def _read_to_the_end(tar: tarfile.TarFile) -> None:
    """Read every header. At a damaged or missing one after the first, tarfile stops as if the archive ended there.

    Raises:
        TarError: it stopped at a place without the zero block that ends every archive.
    """
    for _ in tar:
        pass
    file: IO[bytes] = tar.fileobj  # type: ignore[assignment]
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at {tar.offset}")


def part(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """The content of one part."""
    found = tar.extractfile(name)
    if found is None:
        raise ValueError(f"{name} is not a file")
    return found


def newest(folder: Path) -> str:
    """A hint for a missing or wrong FROM."""
    archives = sorted(folder.glob("sightline-*.tar"), key=lambda file: file.stat().st_mtime)
    return f"The newest is {archives[-1]}." if archives else f"There is none in {folder}; `make backup` creates one."


def size(file: Path) -> str:
    """The size of a file for display, such as 12 MB."""
    count = float(file.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _digest(part: Path | IO[bytes]) -> str:
    with part.open("rb") if isinstance(part, Path) else part as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
