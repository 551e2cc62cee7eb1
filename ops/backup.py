"""Backup and restore, the same for Docker and native mode. Standard library only, as Docker mode uses it, too.

The content of an archive: ops/archive.py. A restore writes an archive of the current state before it changes anything.

Prometheus could take snapshots, but only with an API that also deletes series for every client that reaches its port,
such as a web page. So it is stopped for the seconds that copying takes; its data have a gap of that length. A process
of its own stops and starts these servers, so that they run again however the command ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NoReturn

from ops import secrets, shell
from ops.archive import DUMP, FOLDERS, KEY, LIMIT, newest, opened, part, size, write
from ops.console import confirm, log
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.stack import Stack


def backup(stack: Stack, folder: Path) -> None:
    """Write an archive of the running stack into `folder` and print its path."""
    archive = _write(stack, folder, "", complete=False, key=True)
    print(f"\n{archive} ({size(archive)})")
    print("It contains all user data and the key to Grafana's credentials, but no passwords: store it safely.")
    print(f"`make restore FROM={shlex.quote(str(archive))}` restores it.")


def restore(stack: Stack, name: str, confirmed: bool, folder: Path, start: Callable[[], None]) -> None:
    """Replace the present state by that in the archive `name`; the present one is kept as another archive in `folder`.

    `start` starts everything and waits until it is healthy.

    Raises:
        OpsError: the archive is damaged, of something else, or too new for the servers here, and nothing was changed;
            or a later step failed, and the previous data stay or are put back.
    """
    if not name:
        raise OpsError(f"Set FROM= to the backup to restore. {newest(folder)}")
    archive = Path(name)
    with opened(archive, folder) as (tar, manifest):
        _refuse_unsuitable(archive, manifest, stack)
        created = secrets.make(stack.settings.folder("SECRETS_DIR"))
        made = manifest["made"]
        before = None
        if stack.has_data():
            confirm(f"Replace the data of the stack with those of {made}?", confirmed)
            try:
                stack.stop()
                log.info("Saving the current state")
                before = _write(stack, folder, "-before-restore", complete=True, key=KEY not in created)
            except (OpsError, KeyboardInterrupt):
                start()
                raise
            log.info("  %s", before)
        stack.recover()  # of a restore that was killed
        marker = interrupted(stack)
        first = not _advice(marker)
        if first:
            again = f"make restore FROM={shlex.quote(str(before or archive))}"
            _write_durably(marker, f"`{again}` {'puts back what was there before' if before else 'does it again'}.")
        try:
            _put(stack, tar, manifest)
        except (OpsError, OSError, KeyboardInterrupt) as error:
            if before is None:
                raise
            log.info("Restore failed: putting the previous data back")
            try:
                if not stack.recover():
                    with opened(before, folder) as (old, its_manifest):
                        _put(stack, old, its_manifest)
                if first:
                    marker.unlink()
                start()
            except OpsError as also:
                raise OpsError(f"{error}\n{also}\nThe previous data are in {before}.") from error
            raise OpsError(f"{error or 'Interrupted.'}\nNothing was restored; the previous data are back.") from error
        marker.unlink()
    undo = f"The previous data: `make restore FROM={shlex.quote(str(before))}`." if before else ""
    try:
        start()
    except OpsError as error:
        raise OpsError(f"{error}\n{undo}".strip()) from error
    print(f"\nRestored: the state of {made}.")
    if undo:
        print(undo)


def interrupted(stack: Stack) -> Path:
    """The file that exists while a restore replaces the data; its text is what to do if the restore was killed."""
    return stack.settings.folder("SIGHTLINE_STATE") / "restoring"


def clear_up(stack: Stack) -> None:
    """Remove what a killed backup or restore has left.

    Raises:
        OpsError: data are incomplete; the message is what to do.
    """
    _clear(stack.settings.folder("BACKUPS_DIR"))
    whole = stack.recover()
    if (marker := interrupted(stack)).exists():
        if not whole and (advice := _advice(marker)):
            raise OpsError(f"A restore was interrupted, the data are incomplete. {advice}")
        marker.unlink()


def _advice(marker: Path) -> str:
    """What a restore that was killed has left to do; nothing if it had not begun to replace anything."""
    return marker.read_text() if marker.exists() else ""


def _write_durably(file: Path, text: str) -> None:
    with open(file, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _clear(folder: Path) -> None:
    """Remove what backups that were killed have left; one runs at a time."""
    for partial in folder.glob(".partial-*"):
        shutil.rmtree(partial)


def _write(stack: Stack, folder: Path, suffix: str, *, complete: bool, key: bool) -> Path:
    """Make an archive; it appears whole or not at all.

    Args:
        complete: everything is stopped, PostgreSQL too.
        key: Grafana's key is the one that its data are encrypted with.
    """
    made = datetime.now(UTC)
    archive = folder / f"sightline-{made:%Y%m%d-%H%M%S}{suffix}.tar"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(folder)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
            work = Path(name)
            _pack(stack, work, complete=complete, key=key)
            write(archive, work, made, stack.mode, stack.versions())
    except OSError as error:
        raise OpsError(f"{archive} cannot be written: {error.strerror}.") from error
    return archive


def _pack(stack: Stack, work: Path, *, complete: bool, key: bool) -> None:
    folders = [server for server in FOLDERS if stack.has_server(server)]
    if key and "grafana" in folders and (file := stack.settings.folder("SECRETS_DIR") / KEY).exists():
        shutil.copyfile(file, work / KEY)
    if complete:
        for server in ("postgres", *folders):
            stack.pack(server, work / f"{server}.tar")
        return
    log.info("Dumping PostgreSQL")
    shell.to_file("Dumping", stack.client("pg_dump", "--format=custom"), work / DUMP, stack.environment, PROJECT)
    log.info("Copying the data of %s", ", ".join(folders))
    stopped = time.monotonic()
    with _paused(stack, folders):
        for server in folders:
            stack.pack(server, work / f"{server}.tar")
    log.info("  stopped for %.1f s", time.monotonic() - stopped)


@contextmanager
def _paused(stack: Stack, servers: Sequence[str]) -> Iterator[None]:
    """These servers are stopped. A process of its own starts them again, even if this one is killed.

    It also inherits the lock of `only_one`: the next command begins when they run.

    Raises:
        OpsError: a server did not start again.
    """
    ours, its = socket.socketpair()
    guard = os.fork()
    if not guard:
        ours.close()
        _guard(stack, servers, its)
    its.close()
    try:
        with ours.makefile() as reply:
            if complaint := reply.readline().strip():
                raise OpsError(complaint)
        yield
    finally:
        ours.close()
        if os.waitpid(guard, 0)[1]:
            raise OpsError(f"{', '.join(servers)} may not be running again; `make up` starts them.")


def _guard(stack: Stack, servers: Sequence[str], parent: socket.socket) -> NoReturn:
    """Stop the servers, write an empty line, or what failed; start them again once the parent's end is closed."""
    os.setsid()  # what ends a whole group of processes, such as Ctrl-C, passes by
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(end, lambda *_: None)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    failed = True
    try:
        with stack.paused(servers), suppress(OSError):
            parent.sendall(b"\n")
            parent.recv(1)
        failed = False
    except (OpsError, OSError) as error:
        with suppress(OSError):
            parent.sendall(" ".join(f"{error}".split()).encode() + b"\n")
    finally:
        os._exit(failed)


def _refuse_unsuitable(archive: Path, manifest: Mapping[str, Any], stack: Stack) -> None:
    """Servers can read data of older versions, not of newer ones."""
    here, there = stack.versions(), manifest["versions"]
    raw = DUMP not in manifest["parts"]
    if raw and manifest["mode"] != stack.mode:
        raise OpsError(
            f"{archive} was saved by {manifest['mode']} mode before a restore; only that mode can restore it."
        )
    for server in ("postgres", "prometheus"):
        its, ours = (shell.version(str(versions.get(server))) for versions in (there, here))
        newer = _major(its) > _major(ours)
        if newer or (raw and server == "postgres" and _major(its) != _major(ours)):
            raise OpsError(
                f"{archive} contains data of {server} {its}, which {server} {ours} on this machine cannot read."
            )


def _major(version: str) -> int:
    number = version.split(".")[0]
    return int(number) if number.isdecimal() else 0


def _put(stack: Stack, tar: tarfile.TarFile, manifest: Mapping[str, Any]) -> None:
    stack.stop()
    kept = {server for server in FOLDERS if stack.has_server(server)}
    for name in sorted(set(manifest["parts"]) - {KEY}):
        server = name.removesuffix(".tar")
        with part(tar, name) as content:
            if name == DUMP:
                log.info("Restoring %s", name)
                with stack.new_database() as client:
                    command = client("pg_restore", "--format=custom", "--exit-on-error", "--single-transaction")
                    shell.feed("Loading", command, content, stack.environment, PROJECT)
            elif not stack.has_server(server):
                log.info("Leaving out %s: an override has removed this server", name)
            elif not _is_empty(content):
                log.info("Restoring %s", name)
                stack.unpack(server, content)
                kept.discard(server)
    for server in sorted(kept):
        log.info("Keeping the data of %s: the archive has none", server)
        stack.keep(server)
    stack.replace()
    if KEY in manifest["parts"] and stack.has_server("grafana") and "grafana" not in kept:
        with part(tar, KEY) as content:
            secrets.replace_grafana_key(stack.settings.folder("SECRETS_DIR"), content.read(LIMIT).decode())


def _is_empty(content: IO[bytes]) -> bool:
    """Whether a tar file holds nothing, as backups once had it of a server that an override had removed."""
    with tarfile.open(fileobj=content) as packed:
        empty = packed.next() is None
    content.seek(0)
    return empty
