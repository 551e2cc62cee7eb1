# SPDX-License-Identifier: Apache-2.0
"""The files that the workers of a service share, and how one worker's doubles lie in memory.

    FOLDER/                   one per service, mode 0700
      schema                  what each double means; it only grows
      worker-0, worker-1...   the doubles of one slot each; when a worker dies, its successor counts on in its file

    schema      | magic | committed length | one JSON line per record, see schema.py ...
                0       8                  16

    worker-N    | header | scratch |   | group | group | group | ...  (sparse)  | exemplars          |
    in cells    0        256           512 = FIRST_CELL                         2^22 = CELLS
    (doubles)                                                                   1024 records of 256 bytes

    header      | pid | ready | bytes reserved | exemplars reserved | ...   (integers of 64 bits)

    group       | present | number | number | ...     one combination of label values of one family
                1.0, or the timestamp of a gauge whose most recent value counts; 0.0: this worker has none
                counter, gauge: the value.   summary: count, sum.   histogram: sum, then the observations of each
                bucket, which are not cumulative

    exemplar    | crc32 | length | cell | value | timestamp | labels as JSON |

A group has the same place in the file of every worker. Alone in one process the doubles are floats in a list, nothing
is written anywhere, and only the exemplars need a (private) map.
"""

import json
import mmap
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.samples import Exemplar

from .files import reserve

CELL = 8  # bytes of a double
FIRST_CELL = 512  # the first page is the header
CELLS = 1 << 22  # doubles a worker can hold; the file is sparse, only what is used takes room
EXEMPLARS = 1024  # records kept per worker; a newer one may replace an older one
EXEMPLAR_SIZE = 256
FILE_SIZE = CELLS * CELL + EXEMPLARS * EXEMPLAR_SIZE
RESERVE_STEP = 1 << 16  # bytes reserved ahead, so that a full disk is an error here and not a SIGBUS in a request
SCRATCH = 256  # a double of the header page that takes what has no room

PID, READY, RESERVED, HAS_EXEMPLARS = range(4)  # places in the header

_EXEMPLAR = struct.Struct("<IHxxQdd")  # crc32 of the rest, length of the labels, cell, value, timestamp
MAX_EXEMPLAR_TEXT = EXEMPLAR_SIZE - _EXEMPLAR.size


class Memory:
    """The doubles of one worker: a file, or private memory where `path` is None."""

    def __init__(self, path: Path | None, *, write: bool) -> None:
        self.path = path
        self.fd = -1
        if path is None:
            self.map = mmap.mmap(-1, FILE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
            self.fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if write and os.fstat(self.fd).st_size < FILE_SIZE:
                    reserve(self.fd, 0, FIRST_CELL * CELL)
                    os.ftruncate(self.fd, FILE_SIZE)
                access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
                self.map = mmap.mmap(self.fd, FILE_SIZE, access=access)
            except (OSError, ValueError):
                os.close(self.fd)
                raise
        # Private doubles are floats in a list, which costs half: nothing is packed and unpacked.
        shared = memoryview(self.map)[: CELLS * CELL].cast("d")
        self.cells: memoryview[float] | list[float] = [0.0] * FIRST_CELL if path is None else shared
        self.header = memoryview(self.map)[: FIRST_CELL * CELL].cast("Q")

    def reserve(self, cells: int) -> None:
        """Make sure that the first `cells` doubles have room.

        Raises:
            OSError: there is none on the disk.
        """
        if isinstance(self.cells, list):
            self.cells.extend([0.0] * (cells - len(self.cells)))
            return
        reserved, wanted = self.header[RESERVED], cells * CELL
        if wanted > reserved:
            wanted = -(-wanted // RESERVE_STEP) * RESERVE_STEP
            reserve(self.fd, reserved, wanted - reserved)
            self.header[RESERVED] = wanted

    def close(self) -> None:
        """Close the file and give up the lock on it: the map holds a duplicate of the descriptor."""
        os.close(self.fd)
        with suppress(BufferError):  # another thread of the parent looked at it during the fork
            if not isinstance(self.cells, list):
                self.cells.release()
            self.header.release()
            self.map.close()

    def readable(self) -> int:
        """How many doubles there are to look at; the rest is absent, which means 0."""
        return len(self.cells) if self.fd < 0 else self.header[RESERVED] // CELL

    def numbers(self, start: int, end: int) -> list[float]:
        numbers: Any = self.cells[start:end]
        return numbers if isinstance(numbers, list) else numbers.tolist()

    def pid(self) -> int:
        return self.header[PID] if self.fd >= 0 else os.getpid()

    # Exemplars

    def write_exemplar(self, cell: int, labels: bytes, value: float, timestamp: float) -> None:
        """Keep an exemplar of a cell. `labels` is a JSON object of at most MAX_EXEMPLAR_TEXT bytes."""
        record = _EXEMPLAR.pack(0, len(labels), cell, value, timestamp) + labels
        record = struct.pack("<I", zlib.crc32(record[4:])) + record[4:]
        offset = CELLS * CELL + cell % EXEMPLARS * EXEMPLAR_SIZE
        if not self.header[HAS_EXEMPLARS]:
            try:
                if self.fd >= 0:  # an error here and not a SIGBUS below
                    reserve(self.fd, CELLS * CELL, EXEMPLARS * EXEMPLAR_SIZE)
            except OSError:
                return
            self.header[HAS_EXEMPLARS] = 1
        self.map[offset : offset + len(record)] = record

    def exemplar(self, number: int) -> tuple[int, float, Exemplar] | None:
        """A record's cell, timestamp and exemplar; None where there is none, or one that is just being written."""
        offset = CELLS * CELL + number * EXEMPLAR_SIZE
        record = self.map[offset : offset + EXEMPLAR_SIZE]
        crc, length, cell, value, timestamp = _EXEMPLAR.unpack_from(record)
        if not crc or zlib.crc32(record[4 : _EXEMPLAR.size + length]) != crc:
            return None
        labels = json.loads(record[_EXEMPLAR.size : _EXEMPLAR.size + length])
        return cell, timestamp, Exemplar(labels, value, timestamp)
