# SPDX-License-Identifier: Apache-2.0
"""What each double means: an append-only list of families and groups that every worker reads and may add to.

    ["f", "counter", "http_requests", "HTTP requests...", ["method", "endpoint", "status_code"], [], ""]
    ["g", 0, ["GET", "/items/{item_id}", "200"]]

A family is a metric with its type, label names and bounds; a group is one combination of its label values. Families are
numbered, and groups placed, in the order of the list, so the list alone defines where a group's doubles are. The length
is committed after the text is written: a worker that is killed in between leaves no incomplete record.
"""

import fcntl
import json
import os
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .files import write
from .layout import CELLS, FIRST_CELL

HEADER_SIZE = 16
MAGIC = 0x31_4C_4D_54_53_47_49_53  # identifies this layout; a folder with another one is rejected

# Names that the exposition format allows without quotes.
METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Family:
    """All groups of one metric: same type, label names and bounds.

    Attributes:
        type: counter, gauge, summary or histogram.
        name: without `_total`.
        bounds: upper bounds of a histogram's buckets, without +Inf.
        mode: of a gauge: prometheus_client's `multiprocess_mode`.
        number: its index in Schema.order, the same in every process; -1 if it is not there.
        groups: the first cell of each group, by its label values.
        unshared: the same for groups for which there was no space, in cells of this process only.
        local: whether this process has defined it, too.
        owned: how many objects of this process have numbers here.
        plain: whether it needs no quotes in the exposition format.
    """

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
        "unshared",
        "width",
    )

    def __init__(
        self, type_: str, name: str, help_: str, labelnames: Sequence[str], bounds: Sequence[float], mode: str
    ) -> None:
        self.type = type_
        self.name = name
        self.help = help_
        self.labelnames = tuple(labelnames)
        self.bounds = tuple(bounds)
        self.mode = mode
        self.width = {"counter": 2, "gauge": 2, "summary": 3, "histogram": 3 + len(self.bounds)}[type_]
        self.groups: dict[tuple[str, ...], int] = {}
        self.unshared: dict[tuple[str, ...], int] = {}
        self.starts: list[int] = []
        self.texts: list[str] = []  # the formatted labels of each group, see label_text()
        self.number = -1
        self.local = False
        self.owned = 0
        self.plain = bool(METRIC_NAME.fullmatch(name)) and all(map(LABEL_NAME.fullmatch, self.labelnames))

    def signature(self) -> tuple[Any, ...]:
        return self.type, self.name, self.labelnames, self.bounds, self.mode

    def add(self, labelvalues: tuple[str, ...], start: int) -> None:
        self.texts.append(label_text(self.labelnames, labelvalues))
        self.starts.append(start)
        self.groups[labelvalues] = start


def label_text(names: Sequence[str], values: Sequence[str]) -> str:
    """`a="b",c="d"`, escaped for the exposition format."""
    return ",".join(
        '{}="{}"'.format(name, valid(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))
        for name, value in zip(names, values, strict=True)
    )


def valid(text: str) -> str:
    """The text, with lone surrogates (from `os.fsdecode` or JSON), which UTF-8 cannot encode, written as `\\udc80`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Schema:
    """The families and where their groups are, in the folder's file if `directory` is set, else in this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.directory: Path | None = None
        self._fd = -1
        self.clear()

    def clear(self) -> None:
        self.families: dict[tuple[Any, ...], Family] = {}  # by signature
        self.order: list[Family] = []
        self.by_name: dict[str, list[Family]] = {}
        self.next_cell = FIRST_CELL
        self._read = HEADER_SIZE  # bytes of the file
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add_family(self, family: Family) -> Family:
        """The family of this signature, created if it is new.

        Raises:
            OSError: there is not enough space, or the folder is damaged.
        """
        known = self.families.get(family.signature(), family)
        if known.number < 0:
            record = ["f", family.type, family.name, family.help, family.labelnames, family.bounds, family.mode]
            self._append(record, lambda: self.families.get(family.signature(), family).number >= 0)
        return self.families[family.signature()]

    def keep_local(self, family: Family) -> Family:
        """The family of this signature, in this process only until there is space for it."""
        known = self.families.get(family.signature())
        if known is None:
            known = self.families[family.signature()] = family
            self.by_name.setdefault(family.name, []).append(family)
        return known

    def add_group(self, family: Family, labelvalues: tuple[str, ...]) -> int | None:
        """The first cell of a group, created if it is new; None if all cells are in use.

        Raises:
            OSError: there is not enough space, or the folder is damaged.
        """
        if labelvalues not in family.groups:
            self.add_family(family)
            self._append(
                ["g", family.number, labelvalues],
                lambda: labelvalues in family.groups or self.next_cell + family.width > CELLS,
            )
        return family.groups.get(labelvalues)

    def _append(self, record: list[Any], done: Any) -> None:
        """Add a record unless another worker just did."""
        if self.directory is None:
            if not done():
                self._apply(record)
            return
        with self.locked():
            self.refresh()
            if done():
                return
            line = json.dumps(record).encode() + b"\n"
            write(self._fd, line, self._read)
            write(self._fd, struct.pack("<Q", self._read + len(line)), 8)
            self.refresh()

    def refresh(self) -> None:
        """Read what other workers have added.

        Raises:
            OSError: the folder is damaged.
        """
        if self.directory is None:
            return
        with self.lock:
            self._open()
            committed = self._integer(8)
            if committed < self._read:
                raise self._damaged()
            if committed > self._read:
                text = os.pread(self._fd, committed - self._read, self._read)
                try:
                    if len(text) < committed - self._read:
                        raise EOFError
                    for line in text.splitlines(keepends=True):
                        self._apply(json.loads(line))
                        self._read += len(line)
                except (ValueError, TypeError, LookupError, AttributeError, EOFError):
                    raise self._damaged() from None

    def _apply(self, record: list[Any]) -> None:
        if record[0] == "f":
            family = self.keep_local(Family(*record[1:]))
            family.number = len(self.order)
            self.order.append(family)
        else:
            family = self.order[record[1]]
            family.add(tuple(record[2]), self.next_cell)
            self.next_cell += family.width

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, for microseconds: to add to the schema or to claim a slot."""
        with self.lock:
            self._open()
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _open(self) -> None:
        if self._fd >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path("schema"), flags, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if os.fstat(self._fd).st_size < HEADER_SIZE:
                if self.path("worker-0").exists():  # its numbers have lost their meaning
                    raise self._damaged()
                write(self._fd, struct.pack("<QQ", MAGIC, HEADER_SIZE), 0)
            if self._integer(0) != MAGIC:
                raise self._damaged()
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _integer(self, offset: int) -> int:
        data = os.pread(self._fd, 8, offset)
        if len(data) < 8:
            raise self._damaged()
        return int.from_bytes(data, "little")

    def path(self, name: str) -> Path:
        """The path of a file in the folder.

        Raises:
            OSError: there is no folder.
        """
        if self.directory is None:
            raise OSError("a single process has no shared folder")
        return self.directory / name

    def _damaged(self) -> OSError:
        return OSError(f"{self.directory} is damaged or was written by another version; empty it")
