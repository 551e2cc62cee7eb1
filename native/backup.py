"""Backup and restore, the same for Docker and native mode. Standard library only, as Docker mode uses it, too.

An archive is a tar file (0600) of a manifest and these parts:

    database.dump                               the database `sightline`, by pg_dump in its custom format
    prometheus.tar, alertmanager.tar, grafana.tar   the servers' folders, copied while these three stand still
    postgres.tar                                instead of the dump: PostgreSQL's folder as it is, PostgreSQL stopped

The last kind is what a restore makes of the present state before it touches anything, so that it works whatever state
that is in. Passwords are in no archive: roles and passwords of a restored PostgreSQL are made of the present secrets.

Prometheus offers snapshots, but only with an API that also deletes series for whoever reaches its port (a page in a
browser can). So it is stopped for the seconds that copying takes; there is a gap of that length in its data.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from native.asking import confirm
from native.errors import NativeError

FORMAT = 1
MANIFEST = "manifest.json"
DUMP = "database.dump"
FOLDERS = ("prometheus", "alertmanager", "grafana")  # the servers whose data are files to copy
PARTS = [{database, *(f"{name}.tar" for name in FOLDERS)} for database in (DUMP, "postgres.tar")]
MADE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
MODES = ("docker", "native")
LIMIT = 1 << 20  # bytes of a manifest that can be ours


class Place(Protocol):
    """Where the stack runs: what backup and restore need of a mode."""

    mode: str

    def versions(self) -> dict[str, str]:
        """Server -> version, of what would run here."""

    def require_database(self) -> None:
        """Raises NativeError where PostgreSQL doesn't run."""

    def has_data(self) -> bool: ...

    def stop(self) -> None:
        """Stop everything."""

    def start(self) -> None:
        """Start everything and wait until it is well."""

    @contextmanager
    def paused(self, servers: Sequence[str]) -> Iterator[None]:
        """Those of `servers` that run stand still meanwhile."""
        yield

    def dump(self, file: Path) -> None: ...

    def load(self, dump: IO[bytes]) -> None:
        """Make a new PostgreSQL of the present secrets, with what is in the dump."""

    def pack(self, server: str, file: Path) -> None: ...

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        """Put files in the place of all that `server` has."""


def backup(place: Place, folder: Path) -> None:
    """Write an archive of the running stack into `folder` and say where it is."""
    place.require_database()
    archive = _write(place, folder, "", complete=False)
    print(f"\n{archive} ({_size(archive)})")
    print(
        f"It holds what people have written, but no password: keep it safe. `make restore FROM={archive}` restores it."
    )


def restore(place: Place, name: str, confirmed: bool, folder: Path) -> None:
    """Replace the present state by that in the archive `name`; the present one is kept as another archive in `folder`.

    Raises NativeError, with nothing changed, where the archive is damaged, of something else, or too new for the
    servers here; where something fails later, what was there before is put back.
    """
    if not name:
        raise NativeError(f"Which backup? FROM=... names it. {newest(folder)}")
    archive = Path(name)
    with _opened(archive) as (tar, manifest):
        _refuse_unsuitable(archive, manifest, place)
        made = manifest["made"]
        before = None
        if place.has_data():
            confirm(f"Replace the data of the stack by those of {made}?", confirmed)
            place.stop()
            print("Keeping the present state")
            try:
                before = _write(place, folder, "-before-restore", complete=True)
            except NativeError:
                place.start()
                raise
            print(f"  {before}")
        try:
            _put(place, tar, manifest)
        except (NativeError, OSError, KeyboardInterrupt) as error:
            if before is None:
                raise
            print("That failed: putting back what was there before")
            try:
                with _opened(before) as (old, its_manifest):
                    _put(place, old, its_manifest)
                place.start()
            except NativeError as also:
                raise NativeError(f"{error}\n{also}\nWhat was there before is in {before}.") from error
            raise NativeError(f"{error}\nNothing was restored: what was there before is back.") from error
    place.start()
    print(f"\nRestored: the state of {made}.")
    if before:
        print(f"What was there before: `make restore FROM={before}`.")


def newest(folder: Path) -> str:
    """What to say to somebody who named no archive."""
    archives = sorted(folder.glob("sightline-*.tar"), key=lambda file: file.stat().st_mtime)
    return f"The newest is {archives[-1]}." if archives else f"There is none in {folder}; `make backup` makes one."


def run(what: str, command: Sequence[str], output: Path, **options: Any) -> None:
    """Run `command`, what it prints into the file `output`; `options` as of subprocess.run.

    Raises NativeError that says `what` failed, and how.
    """
    with open(output, "wb") as file:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, **options)
    _check(what, result.returncode, result.stderr)


def feed(what: str, command: Sequence[str], stream: IO[bytes], **options: Any) -> None:
    """Run `command` with `stream` as its input. Raises NativeError as `run` does."""
    with tempfile.TemporaryFile() as complaint:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=complaint, stderr=complaint, **options)
        with suppress(BrokenPipeError), process.stdin as pipe:  # type: ignore[union-attr]
            shutil.copyfileobj(stream, pipe, 1 << 20)  # a broken pipe: it ended early, and its exit code says why
        process.wait()
        complaint.seek(0)
        _check(what, process.returncode, complaint.read())


def version(text: str) -> str:
    """The first version number in what a program says of itself."""
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "unknown"


def _check(what: str, code: int, complaint: bytes) -> None:
    if code:
        lines = complaint.decode(errors="replace").strip().splitlines()[-2:]
        raise NativeError(f"{what} failed: {' '.join(lines) or f'exit code {code}'}")


def _write(place: Place, folder: Path, suffix: str, *, complete: bool) -> Path:
    """Make an archive; it appears whole or not at all. `complete`: everything stands still, PostgreSQL too."""
    made = datetime.now(UTC)
    archive = folder / f"sightline-{made:%Y%m%d-%H%M%S}{suffix}.tar"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
            work = Path(name)
            _pack(place, work, complete=complete)
            parts = sorted(work.iterdir())
            manifest = {
                "sightline": FORMAT,
                "made": f"{made:%Y-%m-%d %H:%M:%S} UTC",
                "mode": place.mode,
                "versions": place.versions(),
                "parts": {part.name: {"bytes": part.stat().st_size, "sha256": _digest(part)} for part in parts},
            }
            (work / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            partial = work / "archive"
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    for part in (work / MANIFEST, *parts):
                        tar.add(part, part.name, filter=_anonymous)
                        part.unlink()  # the disk never has to hold everything twice
                os.fsync(file.fileno())
            partial.rename(archive)
    except OSError as error:
        raise NativeError(f"{archive} can't be written: {error.strerror}.") from error
    return archive


def _pack(place: Place, work: Path, *, complete: bool) -> None:
    if complete:
        for server in ("postgres", *FOLDERS):
            place.pack(server, work / f"{server}.tar")
        return
    print("Dumping PostgreSQL")
    place.dump(work / DUMP)
    print(f"Copying the data of {', '.join(FOLDERS)}")
    stopped = time.monotonic()
    with place.paused(FOLDERS):
        for server in FOLDERS:
            place.pack(server, work / f"{server}.tar")
    print(f"  they stood still for {time.monotonic() - stopped:.1f} s")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, Any]]]:
    """An archive whose every part has been compared with its checksum. Raises NativeError where one is not as written.

    Checksums find damage. They are no signature: who can write an archive can put anything into it.
    """
    try:
        tar = tarfile.open(archive, "r:")  # noqa: SIM115  closed below, behind the checks
    except FileNotFoundError:
        raise NativeError(f"There is no {archive}. {newest(archive.parent)}") from None
    except (OSError, tarfile.TarError) as error:
        raise NativeError(f"{archive} is no backup of this stack: {error}") from None
    with tar:
        try:
            manifest = _manifest(tar)
            for name, facts in manifest["parts"].items():
                if _digest(_part(tar, name)) != facts["sha256"]:
                    raise NativeError(f"{archive} is damaged: {name} is not what was written. Take another backup.")
        except (OSError, EOFError, tarfile.TarError, KeyError, TypeError, AttributeError, ValueError):
            raise NativeError(f"{archive} is damaged or no backup of this stack. {newest(archive.parent)}") from None
        yield tar, manifest


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    with _part(tar, MANIFEST) as file:
        manifest: dict[str, Any] = json.loads(file.read(LIMIT))
    if manifest["sightline"] != FORMAT or set(manifest["parts"]) not in PARTS:
        raise ValueError("of another kind")
    if (
        not re.fullmatch(MADE, manifest["made"])
        or manifest["mode"] not in MODES
        or type(manifest["versions"]) is not dict
    ):
        raise ValueError("incomplete")
    return manifest


def _part(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    part = tar.extractfile(name)
    if part is None:
        raise ValueError(f"{name} is no file")
    return part


def _refuse_unsuitable(archive: Path, manifest: Mapping[str, Any], place: Place) -> None:
    """Servers read what older ones have written, not what newer ones have."""
    here, there = place.versions(), manifest["versions"]
    raw = DUMP not in manifest["parts"]
    if raw and manifest["mode"] != place.mode:
        raise NativeError(
            f"{archive} is the {manifest['mode']} mode's own state before a restore; only that mode can restore it."
        )
    for server in ("postgres", "prometheus"):
        its, ours = (version(str(versions.get(server))) for versions in (there, here))
        newer = _major(its) > _major(ours)
        if newer or (raw and server == "postgres" and _major(its) != _major(ours)):
            raise NativeError(f"{archive} holds data of {server} {its}, which {server} {ours} here cannot read.")


def _major(version: str) -> int:
    number = version.split(".")[0]
    return int(number) if number.isdecimal() else 0


def _put(place: Place, tar: tarfile.TarFile, manifest: Mapping[str, Any]) -> None:
    place.stop()
    for name in sorted(manifest["parts"]):
        print(f"Restoring {name}")
        with _part(tar, name) as part:
            if name == DUMP:
                place.load(part)
            else:
                place.unpack(name.removesuffix(".tar"), part)


def _digest(part: Path | IO[bytes]) -> str:
    with part.open("rb") if isinstance(part, Path) else part as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def _size(file: Path) -> str:
    size = float(file.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
