"""Where the numbers live: doubles in memory that all workers of a service can read.

Every worker owns one file (a slot, taken with flock) of doubles; a number is changed with one store into that file, so
a worker may be killed between any two instructions and nothing is torn or lost. The next worker takes the slot over
and counts on. What each double means stands in a schema that all workers share: an append-only list of families and
groups (one group per combination of label values), whose length is committed after the text is. A group has the same
place in every worker's file, so adding up workers is adding up slices.

Alone in one process the doubles are floats in a private list, and nothing is written anywhere.

Put under prometheus_client with `install()`, which should run before any metric exists.
"""

import fcntl
import json
import logging
import math
import mmap
import multiprocessing
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import prometheus_client
import prometheus_client.values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Exemplar

log = logging.getLogger(__name__)

CELL = 8  # bytes of a double
FIRST_CELL = 512  # the first page is the header
CELLS = 1 << 22  # doubles a worker can hold; the file is sparse, only what is used takes room
EXEMPLARS = 1024  # records kept per worker; a newer one may push out an older one
EXEMPLAR_SIZE = 256
FILE_SIZE = CELLS * CELL + EXEMPLARS * EXEMPLAR_SIZE
RESERVE_STEP = 1 << 16  # bytes written ahead, so that a full disk is an error here and not a SIGBUS in a request
SCHEMA_HEADER = 16
MAGIC = 0x31_4C_4D_54_53_47_49_53  # of this layout; a folder with another one is refused
_PID, _READY, _RESERVED, _HAS_EXEMPLARS = range(4)  # places in the header of a worker's file
SCRATCH = 256  # a double of the header page that takes what has no room

_EXEMPLAR = struct.Struct("<IHxxQdd")  # crc32 of the rest, length of the labels, cell, value, timestamp

# What the exposition format takes without quotes.
METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

# Gauges of these modes speak of a living worker and vanish with it; the others keep their last value.
LIVE_MODES = frozenset({"", "all", "liveall", "livesum", "livemin", "livemax", "livemostrecent"})

# Without the GIL `cells[i] += x` is no longer one step; with it nothing can come between the load and the store.
_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
LOCK = None if _gil else threading.RLock()


class Family:
    """All groups of one metric: same type, label names and bounds. A group is [present or timestamp, numbers...]."""

    __slots__ = (
        "bounds",
        "groups",
        "help",
        "labelnames",
        "local",
        "mode",
        "name",
        "number",
        "owned",
        "plain",
        "starts",
        "texts",
        "type",
        "width",
    )

    def __init__(
        self, type_: str, name: str, help_: str, labelnames: Sequence[str], bounds: Sequence[float], mode: str
    ) -> None:
        self.type = type_
        self.name = name
        self.help = help_
        self.labelnames = tuple(labelnames)
        self.bounds = tuple(bounds)  # of a histogram, without +Inf
        self.mode = mode  # of a gauge
        self.width = {"counter": 2, "gauge": 2, "summary": 3, "histogram": 3 + len(self.bounds)}[type_]
        self.groups: dict[tuple[str, ...], int] = {}
        self.starts: list[int] = []
        self.texts: list[str] = []  # the ready-made labels of each group, see label_text()
        self.number = 0  # its place in Storage.order
        self.local = False  # defined by this process
        self.owned = 0  # how many objects of this process have numbers here
        # Else its names need quotes, or to be replaced: prometheus_client's encoder knows how.
        self.plain = bool(METRIC_NAME.fullmatch(name)) and all(map(LABEL_NAME.fullmatch, self.labelnames))

    def signature(self) -> tuple[Any, ...]:
        return self.type, self.name, self.labelnames, self.bounds, self.mode

    def add(self, labelvalues: tuple[str, ...], start: int) -> None:
        self.texts.append(label_text(self.labelnames, labelvalues))
        self.starts.append(start)
        self.groups[labelvalues] = start


def label_text(names: Sequence[str], values: Sequence[str]) -> str:
    """`a="b",c="d"`, escaped for the exposition format and, doubling %, for a place in a %-format."""
    text = ",".join(
        '{}="{}"'.format(name, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))
        for name, value in zip(names, values, strict=True)
    )
    return text.replace("%", "%%").encode("utf-8", "replace").decode()


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
        """Make sure that the first `cells` doubles have room. Raises OSError when there is none on the disk."""
        if isinstance(self.cells, list):
            self.cells.extend([0.0] * (cells - len(self.cells)))
            return
        reserved, wanted = self.header[_RESERVED], cells * CELL
        if wanted > reserved:
            wanted = -(-wanted // RESERVE_STEP) * RESERVE_STEP
            for offset in range(reserved, wanted, RESERVE_STEP):
                os.pwrite(self.fd, bytes(RESERVE_STEP), offset)
            self.header[_RESERVED] = wanted

    def close(self) -> None:
        """Let go of the file, and of the lock on it: the map holds a duplicate of the descriptor."""
        os.close(self.fd)
        with suppress(BufferError):  # another thread of the parent looked at it during the fork
            if not isinstance(self.cells, list):
                self.cells.release()
            self.header.release()
            self.map.close()

    def readable(self) -> int:
        """How many doubles there are to look at; the rest is absent, which means 0."""
        return len(self.cells) if self.fd < 0 else self.header[_RESERVED] // CELL

    def numbers(self, start: int, end: int) -> list[float]:
        numbers: Any = self.cells[start:end]
        return numbers if isinstance(numbers, list) else numbers.tolist()


class _Forked:
    """Stands for the doubles in a process that was just forked: the first touch claims a slot of its own."""

    def __getitem__(self, key: Any) -> Any:
        return storage.after_fork()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        storage.after_fork()[key] = value


class Storage:
    """The doubles of this process, and the schema that says what they mean."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.directory: Path | None = None
        self.worker = 0
        self.families: dict[tuple[Any, ...], Family] = {}
        self.order: list[Family] = []  # the number of a family is its place here, in every process
        self.by_name: dict[str, list[Family]] = {}
        self.next_cell = FIRST_CELL
        self.full = False
        self._removed = False  # the folder, and it was said
        self._schema_fd = -1
        self._schema_read = SCHEMA_HEADER
        self._peers: dict[int, Memory] = {}
        self._before_fork: Memory | None = None
        self._owned: dict[tuple[Family, tuple[str, ...]], int] = {}  # groups this process defined, how often
        self._unused: dict[int, list[int]] = {}  # cells of anonymous groups that are free again, by width
        self._on_read: list[weakref.WeakMethod[Callable[[], None]]] = []
        self.memory = Memory(None, write=True)
        self.cells: Any = self.memory.cells

    def on_read(self, method: Callable[[], None]) -> None:
        """Have a method called before the numbers are read in this process, as long as its object lives."""
        self._on_read.append(weakref.WeakMethod(method))

    # The schema

    def family(
        self, type_: str, name: str, help_: str, labelnames: Sequence[str], bounds: Sequence[float] = (), mode: str = ""
    ) -> Family:
        """The family of this description, made if it is new. `name` is without `_total`, `bounds` without +Inf."""
        family = Family(type_, name, help_, labelnames, bounds, mode)
        with self.lock:
            known = self.families.get(family.signature())
            if known is None:
                with self._no_room():
                    self._append(["f", type_, name, help_, list(labelnames), list(bounds), mode], family.signature())
                known = self.families.get(family.signature(), family)  # not there when the disk is full
            known.local = True
            known.help = help_
            return known

    def group(self, family: Family, labelvalues: tuple[str, ...]) -> int | None:
        """The first cell of a group, made if it is new and marked as present; None when there is no room left."""
        with self.lock:
            with self._no_room():
                start = family.groups.get(labelvalues)
                if start is None and not self.full and self.next_cell + family.width <= CELLS:
                    self._append(["g", family.number, list(labelvalues)], None)
                    start = family.groups.get(labelvalues)
                if start is None:
                    raise OSError("the memory or the disk for metrics is full")
                self.memory.reserve(start + family.width)
                if not family.mode.endswith("mostrecent"):
                    self.cells[start] = 1.0
                return start
            return None

    @contextmanager
    def _no_room(self) -> Iterator[None]:
        """A full disk is no error of whoever counts; it is said once."""
        try:
            yield
        except OSError as error:
            if not self.full:
                self.full = True
                log.warning("metrics: no room for new series (%s); they are not exposed", error)

    def own(self, family: Family, labelvalues: tuple[str, ...], *, alone: bool) -> int | None:
        """Like group(), noting that this process defines it.

        With `alone`, a second owner in a single process gets cells of its own: two registries, two numbers.
        """
        with self.lock:
            family.owned += 1
            key = family, labelvalues
            if alone and self.directory is None and key in self._owned:
                unused = self._unused.get(family.width)
                if unused:
                    return unused.pop()
                if self.next_cell + family.width > CELLS:
                    return None
                self.next_cell += family.width
                self.memory.reserve(self.next_cell)
                return self.next_cell - family.width
            start = self.group(family, labelvalues)
            if start is not None:
                self._owned[key] = self._owned.get(key, 0) + 1
            return start

    def disown(self, family: Family, labelvalues: tuple[str, ...], start: int | None) -> None:
        """The metric's object is gone (remove(), clear(), unregistered and dropped): so are its numbers here."""
        with self.lock:
            family.owned -= 1
            if start is None:
                return
            key = family, labelvalues
            if family.groups.get(labelvalues) != start:
                self._unused.setdefault(family.width, []).append(start)
            elif self._owned.get(key, 0) > 1:
                self._owned[key] -= 1
                return
            else:
                self._owned.pop(key, None)
            for cell in range(start, start + family.width):
                self.cells[cell] = 0.0

    def refresh(self) -> None:
        """Read what other workers added to the schema."""
        if self.directory is None:
            return
        with self.lock:
            self._open_schema()
            committed = struct.unpack("<Q", os.pread(self._schema_fd, 8, 8))[0]
            if committed > self._schema_read:
                text = os.pread(self._schema_fd, committed - self._schema_read, self._schema_read)
                try:
                    if len(text) < committed - self._schema_read:
                        raise EOFError
                    for line in text.splitlines(keepends=True):
                        self._apply(json.loads(line))
                        self._schema_read += len(line)
                except (ValueError, TypeError, LookupError, AttributeError, EOFError):
                    raise self._damaged() from None

    def _damaged(self) -> OSError:
        return OSError(f"{self.directory} is damaged or was written by another version; empty it")

    def _append(self, record: list[Any], signature: tuple[Any, ...] | None) -> None:
        """Add a record to the schema unless another worker just did."""
        if self.directory is None:
            self._apply(record)
            return
        with self.locked():
            self.refresh()
            if signature is None:
                family = self.order[record[1]]
                if tuple(record[2]) in family.groups or self.next_cell + family.width > CELLS:
                    return
            elif signature in self.families:
                return
            line = json.dumps(record).encode() + b"\n"
            if os.pwrite(self._schema_fd, line, self._schema_read) < len(line):
                raise OSError("the disk for metrics is full")  # and what was written is not committed
            os.pwrite(self._schema_fd, struct.pack("<Q", self._schema_read + len(line)), 8)
            self.refresh()

    def _apply(self, record: list[Any]) -> None:
        if record[0] == "f":
            family = Family(*record[1:])
            family.number = len(self.order)
            self.families[family.signature()] = family
            self.order.append(family)
            self.by_name.setdefault(family.name, []).append(family)
        else:
            family = self.order[record[1]]
            family.add(tuple(record[2]), self.next_cell)
            self.next_cell += family.width

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, for microseconds: the schema grows and slots change hands under it."""
        with self.lock:
            self._open_schema()
            fcntl.flock(self._schema_fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._schema_fd, fcntl.LOCK_UN)

    def _open_schema(self) -> None:
        if self._schema_fd >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._schema_fd = os.open(self._path("schema"), flags, 0o600)
        fcntl.flock(self._schema_fd, fcntl.LOCK_EX)
        try:
            if os.fstat(self._schema_fd).st_size < SCHEMA_HEADER:
                if self._path("worker-0").exists():  # its numbers have lost their meaning
                    raise self._damaged()
                os.pwrite(self._schema_fd, struct.pack("<QQ", MAGIC, SCHEMA_HEADER), 0)
            if struct.unpack("<Q", os.pread(self._schema_fd, 8, 0))[0] != MAGIC:
                raise self._damaged()
        finally:
            fcntl.flock(self._schema_fd, fcntl.LOCK_UN)

    def _path(self, name: str) -> Path:
        if self.directory is None:
            raise OSError("alone in one process, there is no folder")
        return self.directory / name

    # Slots

    def share(self, directory: Path, *, claim: bool) -> None:
        """Keep the numbers in `directory` from now on. Raises OSError where that cannot be; they stay here then."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise OSError(f"{directory} must be a folder of this user that nobody else may write to: chmod 700 it")
        self.directory = directory
        try:
            self.refresh()
            if claim:
                self._claim()
        except OSError:
            self.directory = None
            if self._schema_fd >= 0:
                os.close(self._schema_fd)
                self._schema_fd = -1
            for known in (self.order, self.families, self.by_name):
                known.clear()
            self.next_cell, self._schema_read = FIRST_CELL, SCHEMA_HEADER
            raise

    def _claim(self) -> None:
        """Take the first slot that no living worker holds."""
        with self.locked():
            slot = 0
            while True:
                memory = Memory(self._path(f"worker-{slot}"), write=True)
                try:
                    fcntl.flock(memory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    os.close(memory.fd)
                    slot += 1
            memory.header[_READY] = 0
            self.refresh()
            memory.reserve(FIRST_CELL)
            self._forget_gauges(memory)
            memory.header[_PID] = os.getpid()
            memory.header[_READY] = 1
        self.memory, self.cells, self.worker = memory, memory.cells, slot

    def _forget_gauges(self, memory: Memory) -> None:
        readable = memory.readable()
        for family in self.order:
            if family.type == "gauge" and family.mode in LIVE_MODES:
                for start in family.starts:
                    if start + 1 < readable:
                        memory.cells[start] = memory.cells[start + 1] = 0.0

    def peers(self) -> list[tuple[int, Memory, bool]]:
        """Slot, memory and whether alive, of every worker that ever was; the schema is read up to now."""
        self.cells[0]  # a forked process claims its slot first
        for reference in list(self._on_read):
            method = reference()
            if method is None:
                self._on_read.remove(reference)
            else:
                method()
        self.refresh()
        if self.directory is None:
            return [(0, self.memory, True)]
        if self.memory.fd >= 0 and not self._removed and not os.fstat(self.memory.fd).st_nlink:
            self._removed = True
            log.error(
                "%s was removed while the service runs: each worker tells its own numbers. Restart the service, and "
                "name a folder that stays in PROMETHEUS_MULTIPROC_DIR (systemd's RemoveIPC empties /dev/shm)",
                self.directory,
            )
        found = []
        with self.locked():
            slot = 0
            while (path := self._path(f"worker-{slot}")).exists():
                if slot == self.worker and self.memory.path == path:
                    found.append((slot, self.memory, True))
                else:
                    memory = self._peers.get(slot)
                    if memory is None and path.stat().st_size == FILE_SIZE:
                        memory = self._peers[slot] = Memory(path, write=False)
                    if memory is not None:
                        found.append((slot, memory, bool(memory.header[_READY]) and _is_locked(memory.fd)))
                slot += 1
        return found or [(0, self.memory, True)]

    def pid(self, memory: Memory) -> int:
        return memory.header[_PID] if memory.fd >= 0 else os.getpid()

    # Forks

    def before_fork(self) -> None:
        self.lock.acquire()

    def in_parent(self) -> None:
        self.lock.release()

    def in_child(self) -> None:
        """Leave the parent's slot and wait for the first number to claim one."""
        self.lock = threading.RLock()
        if self.directory is None or isinstance(self.cells, _Forked):
            return
        self.cells = _Forked()
        # The lock belongs to the open file that parent and child share: keep no copy of it.
        if self._schema_fd >= 0:
            os.close(self._schema_fd)
            self._schema_fd = -1
        if self.memory.fd < 0:
            self._before_fork = self.memory
        else:
            self.memory.close()
            self.memory = Memory(None, write=True)

    def after_fork(self) -> Any:
        """The doubles of this forked process, now in a slot of its own."""
        with self.lock:
            if not isinstance(self.cells, _Forked):
                return self.cells
            before, self._before_fork = self._before_fork, None
            try:
                self._claim()
                for family, labelvalues in list(self._owned):
                    self._carry_over(before, family, labelvalues)
            except OSError as error:
                log.warning("metrics of this process are not shared: %s", error)
                self.memory = Memory(None, write=True)
                self.memory.reserve(self.next_cell)
                self.cells = self.memory.cells
            return self.cells

    def _carry_over(self, before: Memory | None, family: Family, labelvalues: tuple[str, ...]) -> None:
        """What was defined before the fork exists here too; gauges set by an unshared parent keep their value."""
        start = self.group(family, labelvalues)
        if start is not None and family.type == "gauge" and before is not None:
            self.cells[start] = before.cells[start]
            self.cells[start + 1] = before.cells[start + 1]

    # Exemplars

    def write_exemplar(self, cell: int, labels: Mapping[str, str], value: float, timestamp: float) -> None:
        """Remember an exemplar of a cell; the format allows no other names and 128 characters in all."""
        text = json.dumps(dict(labels)).encode()
        if len(text) > EXEMPLAR_SIZE - _EXEMPLAR.size or sum(len(k) + len(v) for k, v in labels.items()) > 128:
            return
        if not all(map(LABEL_NAME.fullmatch, labels)):
            return
        record = _EXEMPLAR.pack(0, len(text), cell, value, timestamp) + text
        record = struct.pack("<I", zlib.crc32(record[4:])) + record[4:]
        offset = CELLS * CELL + cell % EXEMPLARS * EXEMPLAR_SIZE
        if not self.memory.header[_HAS_EXEMPLARS]:
            try:
                if self.memory.fd >= 0:  # an error here and not a SIGBUS below
                    os.pwrite(self.memory.fd, bytes(EXEMPLARS * EXEMPLAR_SIZE), CELLS * CELL)
            except OSError:
                return
            self.memory.header[_HAS_EXEMPLARS] = 1
        self.memory.map[offset : offset + len(record)] = record

    def read_exemplars(self, memories: Sequence[Memory]) -> dict[int, Exemplar]:
        """The newest exemplar of each cell that has one."""
        found: dict[int, tuple[float, Exemplar]] = {}
        for memory in memories:
            for number in range(EXEMPLARS if memory.header[_HAS_EXEMPLARS] else 0):
                record = _read_exemplar(memory, number)
                if record is not None:
                    cell, timestamp, exemplar = record
                    if cell not in found or found[cell][0] < timestamp:
                        found[cell] = timestamp, exemplar
        return {cell: exemplar for cell, (_, exemplar) in found.items()}

    def read_exemplar(self, cell: int) -> Exemplar | None:
        """This process' exemplar of one cell: prometheus_client asks for each value anew."""
        if not self.memory.header[_HAS_EXEMPLARS]:
            return None
        record = _read_exemplar(self.memory, cell % EXEMPLARS)
        return record[2] if record is not None and record[0] == cell else None


def _read_exemplar(memory: Memory, number: int) -> tuple[int, float, Exemplar] | None:
    """A record's cell, timestamp and exemplar; None where there is none, or one that is just being written."""
    offset = CELLS * CELL + number * EXEMPLAR_SIZE
    record = memory.map[offset : offset + EXEMPLAR_SIZE]
    crc, length, cell, value, timestamp = _EXEMPLAR.unpack_from(record)
    if not crc or zlib.crc32(record[4 : _EXEMPLAR.size + length]) != crc:
        return None
    return cell, timestamp, Exemplar(json.loads(record[_EXEMPLAR.size : _EXEMPLAR.size + length]), value, timestamp)


def _is_locked(fd: int) -> bool:
    """Whether another process holds the slot; asked under the folder's lock, so that no claim meets this probe."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


class Value:
    """A number of prometheus_client's metrics, kept in the storage."""

    __slots__ = ("_cell",)

    def __init__(self, cell: int = SCRATCH) -> None:
        self._cell = cell

    def inc(self, amount: float) -> None:
        amount = float(amount)  # nothing of the caller's may run between the load and the store
        if LOCK is None:
            storage.cells[self._cell] += amount
        else:
            with LOCK:
                storage.cells[self._cell] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        cells = storage.cells
        cells[self._cell] = value
        if timestamp is not None:
            cells[self._cell - 1] = timestamp

    def get(self) -> float:
        return 0.0 if self._cell == SCRATCH else float(storage.cells[self._cell])

    def set_exemplar(self, exemplar: Exemplar) -> None:
        storage.write_exemplar(self._cell, exemplar.labels, exemplar.value, float(exemplar.timestamp or 0))

    def get_exemplar(self) -> Exemplar | None:
        return storage.read_exemplar(self._cell)


class _HeadValue(Value):
    """The first number of a group; when prometheus_client drops it, the group goes."""

    __slots__ = ("_group",)

    _group: tuple[Family, tuple[str, ...], int | None] | None

    def __init__(self) -> None:
        super().__init__()
        self._group = None

    def bind(self, rest: Sequence[Value], family: Family, labelvalues: tuple[str, ...]) -> "_HeadValue":
        start = storage.own(family, labelvalues, alone=True)
        self._group = family, labelvalues, start
        if start is not None:
            for offset, value in enumerate((self, *rest), start + 1):
                value._cell = offset
        return self

    def __del__(self, finalizing: Any = sys.is_finalizing) -> None:
        # Not when the process ends: what it counted stays.
        if self._group is not None and not finalizing():
            storage.disown(*self._group)


# Summaries and histograms come one number at a time, within one call of labels(): [(upper bound, value), ...].
_unfinished: dict[tuple[Any, ...], tuple[_HeadValue, list[float], list[Value]]] = {}


def new_value(
    type_: str,
    metric: str,
    sample: str,
    labelnames: Sequence[str],
    labelvalues: Sequence[str],
    help_: str,
    multiprocess_mode: str = "",
    **_: Any,
) -> Value:
    """What prometheus_client calls to make a number."""
    names, values = tuple(labelnames), tuple(labelvalues)
    if type_ in ("counter", "gauge"):
        return _HeadValue().bind((), storage.family(type_, metric, help_, names, (), multiprocess_mode), values)
    key = threading.get_ident(), metric, values[:-1] if sample.endswith("_bucket") else values
    if key not in _unfinished:
        head = _HeadValue()
        _unfinished[key] = head, [], []
        return head
    head, bounds, rest = _unfinished[key]
    rest.append(Value())
    bound = float(values[-1]) if type_ == "histogram" else math.inf
    if bound < math.inf:
        bounds.append(bound)
    else:
        del _unfinished[key]
        names = names[:-1] if type_ == "histogram" else names
        head.bind(rest, storage.family(type_, metric, help_, names, bounds), key[2])
    return rest[-1]


# Finding the folder


def _start_time(pid: int) -> str:
    """When the process started, in clock ticks since boot; empty when there is no such process (or no /proc)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _namespace() -> str:
    """The space in which this process' pids are numbered: containers may share a temporary folder."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "0"


def _master() -> int | None:
    """The pid of the process that started this worker, None when this is no worker."""
    parent = multiprocessing.parent_process()
    if parent is not None:  # uvicorn --workers, hypercorn, granian
        return parent.pid
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


def _default_directory(master: int) -> Path:
    """A private folder for the workers of one master; folders of dead masters are removed."""
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
        for path in folder.glob("worker-*"):  # another container's pids say nothing here, its locks do
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _is_locked(fd):
                    return
            finally:
                os.close(fd)
        shutil.rmtree(folder, ignore_errors=True)
    except (OSError, ValueError):
        return


def install(directory: str | os.PathLike[str] | None = None) -> None:
    """Put the storage under prometheus_client. To be called before any metric exists; again changes nothing.

    Metrics that exist already are left as they are, each worker's own, which is worth a warning.

    Workers of uvicorn and gunicorn are recognised and share a private folder that needs no setting. `directory`, or
    PROMETHEUS_MULTIPROC_DIR in the environment, names another one; its owner must be this user and its mode 0700.
    """
    if prometheus_client.values.ValueClass is new_value:
        return
    explicit = directory or os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    master = _master()
    try:
        if explicit:
            storage.share(Path(explicit), claim=master != os.getpid())
        elif master is not None:
            storage.share(_default_directory(master), claim=master != os.getpid())
    except OSError as error:
        log.warning("metrics of this process are not shared with the other workers: %s", error)
    if storage.directory is not None:
        collectors = getattr(prometheus_client.REGISTRY, "_collector_to_names", ())
        earlier = [
            next(iter(found.describe())).name
            for found in collectors
            if isinstance(found, MetricWrapperBase) and getattr(found, "_metrics", True)
        ]
        if earlier:
            log.warning(
                "metrics defined before app.telemetry was imported are not shared between the workers: %s. "
                "Import app.telemetry first",
                ", ".join(earlier),
            )
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    prometheus_client.values.ValueClass = new_value
    os.register_at_fork(before=storage.before_fork, after_in_parent=storage.in_parent, after_in_child=storage.in_child)


def directory() -> Path | None:
    """The private folder (0700) that the workers of this service share; None when alone in one process."""
    return storage.directory


def worker() -> int:
    """This worker's stable slot: 0, 1, 2..., taken over by its successor when it dies; 0 when alone."""
    if isinstance(storage.cells, _Forked):
        storage.after_fork()
    return storage.worker


storage = Storage()
