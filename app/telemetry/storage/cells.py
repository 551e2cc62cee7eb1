# SPDX-License-Identifier: Apache-2.0
"""The doubles of this process: `storage.cells[i] += 1.0` counts, `storage.group()` returns the index.

A number is changed by a single store into the worker's memory-mapped file, so nothing is torn or lost if a worker is
killed between any two instructions.
"""

import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.samples import Exemplar

from . import forks, truncation
from .folder import check, join
from .layout import CELLS, EXEMPLARS, HAS_EXEMPLARS, MAX_EXEMPLAR_TEXT, SCRATCH, Doubles, Memory
from .schema import LABEL_NAME, Family, Schema
from .slots import Peers, Worker, claim, in_use
from .spill import Spilled

log = logging.getLogger("sightline_telemetry")


class Storage:
    """The doubles of this process, and the schema that defines what they mean.

    Attributes:
        worker: the number of this process's slot.
        unshared: the number of series that are in this process's memory although they should be shared.
    """

    def __init__(self) -> None:
        self.schema = Schema()
        self.worker = 0
        self.memory = Memory(None)
        self.cells: Any = self.memory.cells
        self.unshared = 0
        self._unshared_cell = SCRATCH
        self._private = False  # there are other workers, but this one shares none of its numbers
        self._peers = Peers()
        self._logged: set[str] = set()
        self._owned: dict[tuple[Family, tuple[str, ...]], int] = {}  # groups this process defined, and how often
        self._unused: dict[int, list[int]] = {}  # freed cells of groups outside the schema, by width
        self.preloaded: Memory | None = None  # what was counted before the first fork, if that was not shared
        self._on_read: list[weakref.WeakMethod[Callable[[], None]]] = []

    @property
    def directory(self) -> Path | None:
        """The folder that the workers share; None in a single process."""
        return self.schema.directory

    def share(self, directory: Path, *, claim_slot: bool) -> None:
        """Keep the numbers in `directory` from now on.

        If other workers use it but there is no space for this one, it keeps its numbers in memory and reports them in
        telemetry_unshared_series: with another folder that would go unnoticed.

        Raises:
            OSError: the folder cannot be used; the numbers stay in this process.
        """
        check(directory)
        join(directory)
        self.schema.directory = directory
        try:
            self.schema.refresh()
            if claim_slot:
                self.use(*claim(self.schema))
        except OSError as error:
            if in_use(self.schema):
                log.warning("metrics of this process are not shared: %s", error)
                self.use_private_memory()
                return
            self.schema.directory = None
            self.schema.clear()
            raise
        self._private = False

    def use(self, worker: int, memory: Memory) -> None:
        """Count in this slot from now on."""
        spilled = self.cells if isinstance(self.cells, Spilled) else None
        self.worker, self.memory = worker, memory
        self.cells = memory.cells if spilled is None else Spilled(memory.cells, spilled.private)

    def use_private_memory(self) -> None:
        """Count in memory that only this process can read, although there are other workers."""
        memory = Memory(None)
        memory.reserve(self.schema.next_cell)
        self.use(0, memory)
        self.refused()

    def refused(self) -> None:
        """This process cannot share its numbers with the other workers."""
        self._private = True

    def report_unshared(self, cell: int) -> None:
        """Keep `unshared` in this cell."""
        self._unshared_cell = cell

    # Groups

    def family(
        self, type_: str, name: str, help_: str, labelnames: Sequence[str], bounds: Sequence[float] = (), mode: str = ""
    ) -> Family:
        """The family of this description, created if it is new. `name` is without `_total`, `bounds` without +Inf."""
        family = Family(type_, name, help_, labelnames, bounds, mode)
        with self.schema.lock:
            try:
                family = self.schema.add_family(family)
            except OSError as error:
                self._no_room(error)
                family = self.schema.keep_local(family)
            family.local = True
            family.help = help_
            return family

    def group(self, family: Family, labelvalues: tuple[str, ...]) -> int | None:
        """The first cell of a group, created if it is new and marked as present; None if all cells are in use.

        If there is no space in the folder, the group is in the memory of this process.
        """
        with self.schema.lock:
            self.cells[0]  # a forked process claims its slot first
            start = family.unshared.get(labelvalues)
            try:
                if start is None:
                    start = self.schema.add_group(family, labelvalues)
                    if start is None:
                        self.log_once("all %d cells for metrics are in use; new series are not counted", CELLS)
                        return None
                    self.memory.reserve(start + family.width)
            except OSError as error:
                self._no_room(error)
                if not isinstance(self.cells, Spilled):
                    self.cells = Spilled(self.cells)
                start = family.unshared[labelvalues] = self.cells.add(family.width)
                self.unshared += 1
                self.cells[self._unshared_cell] = float(self.unshared)
            if not family.mode.endswith("mostrecent"):
                self.cells[start] = 1.0
            return start

    def _no_room(self, error: OSError) -> None:
        """Log it: a full disk must not raise in the code that counts."""
        self.log_once(
            "metrics: no space left in %s (%s). New series are counted per worker and exposed with the label worker. "
            "Free space there and restart the service",
            self.directory,
            error,
        )

    def log_once(self, message: str, *arguments: object, exc_info: bool = False) -> None:
        if message not in self._logged:
            self._logged.add(message)
            log.warning(message, *arguments, exc_info=exc_info)

    def own(self, family: Family, labelvalues: tuple[str, ...], *, alone: bool) -> int | None:
        """Like group(), and records that this process defines it.

        With `alone`, a second owner in a single process gets separate cells: two registries, two numbers.
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
        """Reset the numbers of a metric object that was deleted (remove(), clear(), unregistered)."""
        with self.schema.lock:
            family.owned -= 1
            if start is None:
                return
            key = family, labelvalues
            if start not in (family.groups.get(labelvalues), family.unshared.get(labelvalues)):
                self._unused.setdefault(family.width, []).append(start)
            elif self._owned.get(key, 0) > 1:
                self._owned[key] -= 1
                return
            else:
                self._owned.pop(key, None)
            for cell in range(start, start + family.width):
                self.cells[cell] = 0.0

    def carry_over(self, before: Memory | None, *, parent: bool) -> None:
        """After a fork: define here what was defined before it, with the numbers of a process that had no slot.

        Gauges keep their values in the children and, except those that are summed, in the parent. Counts stay in the
        parent only.
        """
        for family, labelvalues in list(self._owned):
            start = self.group(family, labelvalues)
            if start is None or before is None:
                continue
            if parent != (family.type == "gauge") or (parent and not family.mode.endswith("sum")):
                for cell in range(start, start + family.width):
                    self.cells[cell] = before.cells[cell]

    # Reading

    def on_read(self, method: Callable[[], None]) -> None:
        """Call a method before each read of the numbers in this process, as long as its object exists."""
        self._on_read.append(weakref.WeakMethod(method))

    def peers(self) -> list[Worker]:
        """All workers, dead ones included; brings the schema up to date."""
        self.cells[0]  # a forked process claims its slot first
        if self.memory.fd >= 0:
            self._check_file()
        for reference in list(self._on_read):
            method = reference()
            if method is None:
                self._on_read.remove(reference)
            else:
                method()
        own = Worker(self.worker, self.memory, True)
        if self._private:
            self.unshared = sum(len(family.groups) for family in self.schema.order)
            self.cells[self._unshared_cell] = float(self.unshared)
        try:
            self.schema.refresh()
            return self._peers.read(self.schema, own, self.memory.path, whole=self._private)
        except OSError as error:
            self.log_once("each worker exposes only its own metrics: %s", error)
            return [own]

    def _check_file(self) -> None:
        """Check whether the file in which this process counts was removed or truncated."""
        if truncation.repaired(self.memory.fd):
            log.error("%s was truncated while in use: the counts of this worker are lost", self.memory.path)
            try:
                self.memory.restore()
            except OSError as error:
                self._no_room(error)
            for family, labelvalues in self._owned:
                start = family.groups.get(labelvalues)
                if start is not None and not family.mode.endswith("mostrecent"):
                    self.cells[start] = 1.0
        if not os.fstat(self.memory.fd).st_nlink:
            self.log_once(
                "%s was removed while in use: each worker exposes only its own metrics. Restart the service, and set "
                "PROMETHEUS_MULTIPROC_DIR to a folder that is not cleaned up (systemd's RemoveIPC empties /dev/shm)",
                self.directory,
            )

    # Exemplars

    def write_exemplar(self, cell: int, labels: Mapping[str, str], value: float, timestamp: float) -> None:
        """Store an exemplar of a cell, unless its label names are invalid or the labels exceed 128 characters.

        Both are limits of the OpenMetrics format.
        """
        text = json.dumps(dict(labels)).encode()
        if len(text) > MAX_EXEMPLAR_TEXT or sum(len(k) + len(v) for k, v in labels.items()) > 128:
            return
        if cell >= CELLS or not all(map(LABEL_NAME.fullmatch, labels)):
            return
        try:
            self.memory.write_exemplar(cell, text, value, timestamp)
        except OSError as error:
            self.log_once("metrics: no space for exemplars in %s (%s)", self.directory, error)

    def read_exemplar(self, cell: int) -> Exemplar | None:
        """This process's exemplar of one cell, as prometheus_client requests it for each value."""
        if not self.memory.header[HAS_EXEMPLARS]:
            return None
        record = self.memory.exemplar(cell % EXEMPLARS)
        return record[2] if record is not None and record[0] == cell else None


def newest_exemplars(memories: Sequence[Doubles]) -> dict[int, Exemplar]:
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
    """The private folder (0700) that the workers of this service share; None in a single process."""
    return storage.directory


def worker() -> int:
    """This worker's stable slot: 0, 1, 2..., taken over by its successor when it dies; 0 in a single process."""
    if isinstance(storage.cells, forks.Forked):
        forks.claimed(storage)
    return storage.worker
