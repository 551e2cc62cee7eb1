# SPDX-License-Identifier: Apache-2.0
"""What the files of the shared folder have in common: reserved disk space, locks, and memory maps of a fixed size."""

import errno
import fcntl
import mmap
import os
from pathlib import Path

from . import truncation

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_ZEROS = bytes(1 << 16)


def reserve(fd: int, offset: int, length: int) -> None:
    """Reserve disk space for these bytes, none of which may be in use yet.

    A store into a memory map ends the process with SIGBUS if there is no disk space for the page. This raises instead.

    Raises:
        OSError: there is not enough space.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, offset, length)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    # macOS, and file systems without support for it if the C library does not emulate it (musl).
    end = offset + length
    while offset < end:
        offset += write(fd, _ZEROS[: end - offset], offset)


def write(fd: int, data: bytes, offset: int) -> int:
    """Write all of the data.

    Raises:
        OSError: there is not enough space. (The system call itself would return the number of bytes written.)
    """
    written = 0
    while written < len(data):
        count = os.pwrite(fd, data[written:], offset + written)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += count
    return written


def is_locked(fd: int) -> bool:
    """Whether another process holds the lock. To be called under the folder's lock, or it could disturb a claim."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def is_held(path: Path) -> bool:
    """`is_locked` of the file at `path`.

    Raises:
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def map_file(path: Path | None, size: int, head: bytes = b"") -> mmap.mmap:
    """Map `size` bytes of the file at `path`, created if it does not exist; private memory if `path` is None.

    For shared data other than doubles: active users, the longest prompts.

    Args:
        head: the first bytes, unless another worker has written its own there; the rest is zero at first.

    Raises:
        OSError: the file cannot be opened, or there is not enough space.
    """
    if path is None:
        mapped = mmap.mmap(-1, size)
        mapped[: len(head)] = head
        return mapped
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        if (there := os.fstat(fd).st_size) < size:
            reserve(fd, there, size - there)
        mapped = mmap.mmap(fd, size)
        if head and not any(mapped[: len(head)]):
            mapped[: len(head)] = head
    except BaseException:
        os.close(fd)
        raise
    fcntl.flock(fd, fcntl.LOCK_UN)
    truncation.guard(fd, size)
    return mapped
