# SPDX-License-Identifier: Apache-2.0
"""Which folder the workers of a service share: set in the environment, or named after the process that started them."""

import fcntl
import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

from .files import is_held, write


def check(directory: Path) -> None:
    """Create the folder if it does not exist.

    Raises:
        OSError: it cannot be created, belongs to another user or is writable by others.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{directory} is a symbolic link; set the folder itself")
    if status.st_uid != os.geteuid():
        raise OSError(f"{directory} belongs to another user; set a folder of this user")
    if status.st_mode & 0o022:
        raise OSError(f"{directory} is writable by other users: chmod 700 it")


def join(directory: Path) -> None:
    """Use the folder for this service, for as long as this process or a fork of it lives.

    Files of another service are removed if all processes of that service have ended.

    Raises:
        OSError: another service uses the folder.
    """
    fd = os.open(directory / "service", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    service = _service().encode()
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.pread(fd, len(service) + 1, 0) != service:
                for left in directory.iterdir():
                    if left.name == "schema" or left.name.startswith("worker-") or left.suffix in (".bin", ".ring"):
                        left.unlink(missing_ok=True)
                os.ftruncate(fd, 0)
                write(fd, service, 0)
        except BlockingIOError:
            pass
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.pread(fd, len(service) + 1, 0) != service:
            raise OSError(f"{directory} is in use by another service; give each its own folder")
    except OSError:
        os.close(fd)
        raise


def _service() -> str:
    """Identifies the processes of one service: by their master, or by parent and command line."""
    master = master_pid()
    if master is not None:
        return f"{_namespace()} {master} {_start_time(master)}"
    parent = os.getppid()
    return f"{_namespace()} {parent} {_start_time(parent)} {_digest(sys.orig_argv)}"


def _digest(command: list[str]) -> str:
    return blake2b("\0".join(command).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def master_pid() -> int | None:
    """The pid of the process that started this worker; None if this process is not a worker."""
    parent = multiprocessing.parent_process()
    if parent is not None:  # uvicorn --workers, hypercorn, granian
        return parent.pid
    if "celery" in sys.modules and Path(sys.argv[0]).name in ("celery", "__main__.py") and "worker" in sys.argv:
        return os.getpid()  # the main process, which forks the pool's
    arbiter = sys.modules.get("gunicorn.arbiter")
    if arbiter is None or not os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        return None
    # A worker runs inside the arbiter's spawn_worker(); outside of it this is the arbiter, preloading.
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != "spawn_worker":
        frame = frame.f_back
    if frame.f_code.co_name == "spawn_worker" or not hasattr(arbiter.Arbiter, "spawn_worker"):
        return os.getppid()
    return os.getpid()


def private_folder(master: int) -> Path:
    """The path of the folder for the workers of one master; folders of dead masters are removed."""
    base = Path("/dev/shm")  # noqa: S108 - memory, which the disk does not slow down; the folder is checked for its owner
    if not os.access(base, os.W_OK | os.X_OK):
        base = Path(tempfile.gettempdir())
    prefix = f"telemetry-{os.geteuid()}-"
    for folder in base.glob(f"{prefix}*"):
        _remove_if_dead(folder, *folder.name.removeprefix(prefix).split("-"))
    return base / f"{prefix}{_namespace()}-{master}-{_start_time(master)}"


def _remove_if_dead(folder: Path, namespace: str = "", master: str = "", start: str = "", *_: str) -> None:
    try:
        if namespace == _namespace() and start and _start_time(int(master)) == start:
            return
        if folder.lstat().st_uid != os.geteuid() or time.time() - folder.lstat().st_mtime < 60:
            return
        # The pids of another container mean nothing here, but its locks do.
        files = (folder / "service", *folder.glob("worker-*"))
        if not any(path.exists() and is_held(path) for path in files):
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, ValueError):
        return


def _start_time(pid: int) -> str:
    """When the process started, in clock ticks since boot; empty if there is no such process (or no /proc)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _namespace() -> str:
    """The pid namespace of this process: containers may share a temporary folder."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "0"
