# SPDX-License-Identifier: Apache-2.0
"""The files that the workers of a service share, and the layout of one worker's doubles.

    FOLDER/                   one per service, mode 0700
      schema                  what each double means; it only grows
      worker-0, worker-1...   the doubles of one slot each; when a worker dies, its successor continues in its file

    schema      | magic | committed length | one JSON line per record, see schema.py ...
                0       8                  16

    worker-N    | header | scratch |   | group | group | group | ...  (sparse)  | exemplars          |
    in cells    0        256           512 = FIRST_CELL                         2^22 = CELLS
    (doubles)                                                                   1024 records of 256 bytes

    header      | pid | ready | bytes reserved | exemplars reserved | ...   (integers of 64 bits)

    group       | present | number | number | ...     one combination of label values of one family
                `present` is 1.0, or the timestamp of a gauge in a mostrecent mode; 0.0 if the worker has no such group
                counter, gauge: the value.   summary: count, sum.   histogram: sum, then the observations of each
                bucket, which are not cumulative

    exemplar    | crc32 | length | cell | value | timestamp | labels as JSON |

A group is at the same offset in the file of every worker. In a single process the doubles are floats in a list, nothing
is written to disk, and only the exemplars need a (private) memory map.
"""

import fcntl
import json
import mmap
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.samples import Exemplar

from . import truncation
from .files import reserve

CELL = 8  # bytes of a double
FIRST_CELL = 512  # the first page is the header
CELLS = 1 << 22  # maximum number of doubles per worker; the file is sparse, only what is used takes space
EXEMPLARS = 1024  # records kept per worker; a newer one may replace an older one
EXEMPLAR_SIZE = 256
FILE_SIZE = CELLS * CELL + EXEMPLARS * EXEMPLAR_SIZE
PAGE = 1 << 12
RESERVE_STEP = 1 << 16  # bytes reserved ahead, so that a full disk is an error here and not a SIGBUS in a request
SCRATCH = 256  # a double of the header page for series that are not counted: written, never read

PID, READY, RESERVED, HAS_EXEMPLARS = range(4)  # places in the header

_EXEMPLAR = struct.Struct("<IHxxQdd")  # crc32 of the rest, length of the labels, cell, value, timestamp
MAX_EXEMPLAR_TEXT = EXEMPLAR_SIZE - _EXEMPLAR.size


class Doubles:
    """What Memory and Peer have in common: how a worker's doubles are read."""

    cells: Any
    header: "memoryview[int]"

    def used(self) -> int:
        """How many doubles can be read."""
        return len(self.cells)

    def numbers(self, start: int, end: int) -> list[float] | None:
        """The doubles of a group; None if this worker does not have it."""
        if end > self.used():
            return None
        numbers: Any = self.cells[start:end]
        numbers = numbers if isinstance(numbers, list) else numbers.tolist()
        return numbers if numbers[0] else None

    def pid(self) -> int:
        return self.header[PID]

    def record(self, number: int) -> bytes:
        """The bytes of an exemplar's record."""
        raise NotImplementedError

    def exemplar(self, number: int) -> tuple[int, float, Exemplar] | None:
        """A record's cell, timestamp and exemplar; None if it is empty or is being written."""
        record = self.record(number)
        if len(record) < EXEMPLAR_SIZE:
            return None
        crc, length, cell, value, timestamp = _EXEMPLAR.unpack_from(record)
        if not crc or zlib.crc32(record[4 : _EXEMPLAR.size + length]) != crc:
            return None
        labels = json.loads(record[_EXEMPLAR.size : _EXEMPLAR.size + length])
        return cell, timestamp, Exemplar(labels, value, timestamp)


class Peer(Doubles):
    """The doubles of another worker, as of the last look(). Read and not mapped: the file may be truncated."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.look()

    def look(self) -> None:
        header = os.pread(self.fd, FIRST_CELL * CELL, 0).ljust(FIRST_CELL * CELL, b"\0")
        self.header = memoryview(header).cast("Q")
        data = os.pread(self.fd, min(self.header[RESERVED], CELLS * CELL), 0)
        self.cells = memoryview(data[: len(data) // CELL * CELL]).cast("d")

    def record(self, number: int) -> bytes:
        return os.pread(self.fd, EXEMPLAR_SIZE, CELLS * CELL + number * EXEMPLAR_SIZE)


class Memory(Doubles):
    """The doubles of this process: a file, whose lock it holds for as long as it lives, or private memory.

    Raises:
        BlockingIOError: another process has the lock.
        OSError: the file cannot be opened, or there is not enough space.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.fd = -1
        if path is None:
            self.map = mmap.mmap(-1, FILE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._make()
                self.map = mmap.mmap(self.fd, FILE_SIZE)
            except (OSError, ValueError):
                os.close(self.fd)
                raise
            truncation.guard(self.fd, FILE_SIZE)
        # Private doubles are floats in a list, at half the cost of a memory map: nothing is packed or unpacked.
        shared = memoryview(self.map)[: CELLS * CELL].cast("d")
        self.cells = [0.0] * FIRST_CELL if path is None else shared
        self.header = memoryview(self.map)[: FIRST_CELL * CELL].cast("Q")
        self._reserved = self.header[RESERVED]  # the copy in the file is for readers

    def _make(self) -> None:
        """Reserve the header and extend the file, which is new or truncated, to its full sparse size."""
        if os.fstat(self.fd).st_size < FILE_SIZE:
            os.ftruncate(self.fd, 0)
            try:
                reserve(self.fd, 0, FIRST_CELL * CELL)
                os.ftruncate(self.fd, FILE_SIZE)
            except OSError:
                os.ftruncate(self.fd, 0)  # an incomplete file takes space that others need
                raise

    def open_to_readers(self) -> None:
        self.header[PID] = os.getpid()
        self.header[RESERVED] = self._reserved
        self.header[READY] = 1

    def reserve(self, cells: int) -> None:
        """Reserve space for the first `cells` doubles.

        Raises:
            OSError: there is not enough disk space.
        """
        if isinstance(self.cells, list):
            self.cells.extend([0.0] * (cells - len(self.cells)))
            return
        wanted = cells * CELL
        if wanted <= self._reserved:
            return
        try:
            end = _rounded(wanted, RESERVE_STEP)
            reserve(self.fd, self._reserved, end - self._reserved)
        except OSError:
            end = _rounded(wanted, PAGE)  # use the last pages of a disk, too
            reserve(self.fd, self._reserved, end - self._reserved)
        self._reserved = self.header[RESERVED] = end

    def restore(self) -> None:
        """Reserve the space again after the file was truncated and extended: all numbers are 0.

        Raises:
            OSError: there is not enough space.
        """
        reserve(self.fd, 0, self._reserved)
        self.header[HAS_EXEMPLARS] = 0
        self.open_to_readers()

    def close(self) -> None:
        """Close the file and release its lock, which the map would keep: it holds a duplicate of the descriptor."""
        truncation.forget(self.fd)
        os.close(self.fd)
        with suppress(BufferError):  # another thread of the parent was reading it during the fork
            if not isinstance(self.cells, list):
                self.cells.release()
            self.header.release()
            self.map.close()

    def used(self) -> int:
        return len(self.cells) if self.fd < 0 else self._reserved // CELL

    def pid(self) -> int:
        return os.getpid()

    def record(self, number: int) -> bytes:
        offset = CELLS * CELL + number * EXEMPLAR_SIZE
        return self.map[offset : offset + EXEMPLAR_SIZE]

    def write_exemplar(self, cell: int, labels: bytes, value: float, timestamp: float) -> None:
        """Store an exemplar of a cell. `labels` is a JSON object of at most MAX_EXEMPLAR_TEXT bytes.

        Raises:
            OSError: there is not enough space for exemplars.
        """
        record = _EXEMPLAR.pack(0, len(labels), cell, value, timestamp) + labels
        record = struct.pack("<I", zlib.crc32(record[4:])) + record[4:]
        offset = CELLS * CELL + cell % EXEMPLARS * EXEMPLAR_SIZE
        if not self.header[HAS_EXEMPLARS]:
            if self.fd >= 0:
                reserve(self.fd, CELLS * CELL, EXEMPLARS * EXEMPLAR_SIZE)
            self.header[HAS_EXEMPLARS] = 1
        self.map[offset : offset + len(record)] = record


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step
