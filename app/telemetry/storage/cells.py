# SPDX-License-Identifier: Apache-2.0
"""The doubles of this process: `storage.cells[i] += 1.0` counts, `storage.group()` says where.

A number is changed with one store into the worker's file, so a worker may be killed between any two instructions and
nothing is torn or lost.
"""

import json
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.samples import Exemplar

from . import forks
from .folder import check
from .layout import CELLS, EXEMPLARS, HAS_EXEMPLARS, MAX_EXEMPLAR_TEXT, Memory
from .schema import LABEL_NAME, Family, Schema
from .slots import Peers, Worker, claim

log = logging.getLogger("sightline_telemetry")


class Storage:
    """The doubles of this process, and the schema that says what they mean."""

    def __init__(self) -> None:
        self.schema = Schema()
        self.worker = 0  # the number of this process's slot
        self.memory = Memory(None, write=True)
        self.cells: Any = self.memory.cells
        self._full = False
        self._peers = Peers()
        self._owned: dict[tuple[Family, tuple[str, ...]], int] = {}  # groups this process defined, how often
        self._unused: dict[int, list[int]] = {}  # cells of anonymous groups that are free again, by width
        self._on_read: list[weakref.WeakMethod[Callable[[], None]]] = []

    @property
    def directory(self) -> Path | None:
        """The folder that the workers share; None when alone in one process."""
        return self.schema.directory

    def share(self, directory: Path, *, claim_slot: bool) -> None:
        """Keep the numbers in `directory` from now on.

        Raises:
            OSError: that cannot be; they stay in this process then.
        """
        check(directory)
        self.schema.directory = directory
        try:
            self.schema.refresh()
            if claim_slot:
                self.worker, self.memory = claim(self.schema)
                self.cells = self.memory.cells
        except OSError:
            self.schema.directory = None
            self.schema.clear()
            raise

    def keep_private(self) -> None:
        """Count in memory that only this process reads."""
        self.memory = Memory(None, write=True)
        self.memory.reserve(self.schema.next_cell)
        self.cells = self.memory.cells

    # Groups

    def family(
        self, type_: str, name: str, help_: str, labelnames: Sequence[str], bounds: Sequence[float] = (), mode: str = ""
    ) -> Family:
        """The family of this description, made if it is new. `name` is without `_total`, `bounds` without +Inf."""
        family = Family(type_, name, help_, labelnames, bounds, mode)
        with self.schema.lock:
            with self._no_room():
                family = self.schema.add_family(family)
            family.local = True
            family.help = help_
            return family

    def group(self, family: Family, labelvalues: tuple[str, ...]) -> int | None:
        """The first cell of a group, made if it is new and marked as present; None when there is no room left."""
        with self.schema.lock, self._no_room():
            start = family.groups.get(labelvalues)
            if start is None and not self._full:
                start = self.schema.add_group(family, labelvalues)
            if start is None:
                raise OSError("the memory or the disk for metrics is full")
            self.memory.reserve(start + family.width)
            if not family.mode.endswith("mostrecent"):
                self.cells[start] = 1.0
            return start
        return None

    @contextmanager
    def _no_room(self) -> Iterator[None]:
        """A full disk is no error of whoever counts; it is logged once."""
        try:
            yield
        except OSError as error:
            if not self._full:
                self._full = True
                log.warning("metrics: no room for new series (%s); they are not exposed", error)

    def own(self, family: Family, labelvalues: tuple[str, ...], *, alone: bool) -> int | None:
        """Like group(), noting that this process defines it.

        With `alone`, a second owner in a single process gets cells of its own: two registries, two numbers.
        """
        with self.schema.lock:
            family.owned += 1
            key = family, labelvalues
            if alone and self.directory is None and key in self._owned:
                unused = self._unused.get(family.width)
                if unused:
                    return unused.pop()
                if self.schema.next_cell + family.width > CELLS:
                    return None
                self.schema.next_cell += family.width
                self.memory.reserve(self.schema.next_cell)
                return self.schema.next_cell - family.width
            start = self.group(family, labelvalues)
            if start is not None:
                self._owned[key] = self._owned.get(key, 0) + 1
            return start

    def disown(self, family: Family, labelvalues: tuple[str, ...], start: int | None) -> None:
        """The metric's object is gone (remove(), clear(), unregistered and dropped): so are its numbers here."""
        with self.schema.lock:
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

    def carry_over(self, before: Memory | None) -> None:
        """After a fork: what was defined before exists here too; gauges set by an unshared parent keep their value."""
        for family, labelvalues in list(self._owned):
            start = self.group(family, labelvalues)
            if start is not None and family.type == "gauge" and before is not None:
                self.cells[start] = before.cells[start]
                self.cells[start + 1] = before.cells[start + 1]

    # Reading

    def on_read(self, method: Callable[[], None]) -> None:
        """Call a method before the numbers are read in this process, as long as its object lives."""
        self._on_read.append(weakref.WeakMethod(method))

    def peers(self) -> list[Worker]:
        """Every worker that ever was; the schema is read up to now. Raises OSError where the folder is damaged."""
        self.cells[0]  # a forked process claims its slot first
        for reference in list(self._on_read):
            method = reference()
            if method is None:
                self._on_read.remove(reference)
            else:
                method()
        self.schema.refresh()
        return self._peers.read(self.schema, self.worker, self.memory)

    # Exemplars

    def write_exemplar(self, cell: int, labels: Mapping[str, str], value: float, timestamp: float) -> None:
        """Keep an exemplar of a cell; the format allows no other names and 128 characters in all."""
        text = json.dumps(dict(labels)).encode()
        if len(text) > MAX_EXEMPLAR_TEXT or sum(len(k) + len(v) for k, v in labels.items()) > 128:
            return
        if all(map(LABEL_NAME.fullmatch, labels)):
            self.memory.write_exemplar(cell, text, value, timestamp)

    def read_exemplar(self, cell: int) -> Exemplar | None:
        """This process' exemplar of one cell: prometheus_client asks for each value anew."""
        if not self.memory.header[HAS_EXEMPLARS]:
            return None
        record = self.memory.exemplar(cell % EXEMPLARS)
        return record[2] if record is not None and record[0] == cell else None


def newest_exemplars(memories: Sequence[Memory]) -> dict[int, Exemplar]:
    """The newest exemplar of each cell that has one."""
    found: dict[int, tuple[float, Exemplar]] = {}
    for memory in memories:
        for number in range(EXEMPLARS if memory.header[HAS_EXEMPLARS] else 0):
            record = memory.exemplar(number)
            if record is not None:
                cell, timestamp, exemplar = record
                if cell not in found or found[cell][0] < timestamp:
                    found[cell] = timestamp, exemplar
    return {cell: exemplar for cell, (_, exemplar) in found.items()}


storage = Storage()


def directory() -> Path | None:
    """The private folder (0700) that the workers of this service share; None when alone in one process."""
    return storage.directory


def worker() -> int:
    """This worker's stable slot: 0, 1, 2..., taken over by its successor when it dies; 0 when alone."""
    if isinstance(storage.cells, forks.Forked):
        forks.claimed(storage)
    return storage.worker
