# SPDX-License-Identifier: Apache-2.0
"""Slots: which worker counts in which file.

Slot N is the file `worker-N`, taken with flock for as long as the worker lives. A new worker takes the first one that
is free, so a successor goes on where the dead one stopped, and nothing has to be cleaned up or added together.
"""

import fcntl
import logging
import os
from typing import NamedTuple

from .files import is_locked
from .layout import FILE_SIZE, FIRST_CELL, PID, READY, Memory
from .schema import Schema

log = logging.getLogger("sightline_telemetry")

# Gauges of these modes speak of a living worker and vanish with it; the others keep their last value.
LIVE_MODES = frozenset({"", "all", "liveall", "livesum", "livemin", "livemax", "livemostrecent"})


class Worker(NamedTuple):
    """Of one slot."""

    slot: int
    memory: Memory
    alive: bool


def claim(schema: Schema) -> tuple[int, Memory]:
    """Take the first slot that no living worker holds. Raises OSError."""
    with schema.locked():
        slot = 0
        while True:
            memory = Memory(schema.path(f"worker-{slot}"), write=True)
            try:
                fcntl.flock(memory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                os.close(memory.fd)
                slot += 1
        memory.header[READY] = 0
        schema.refresh()
        memory.reserve(FIRST_CELL)
        _forget_gauges(schema, memory)
        memory.header[PID] = os.getpid()
        memory.header[READY] = 1
    return slot, memory


def _forget_gauges(schema: Schema, memory: Memory) -> None:
    readable = memory.readable()
    for family in schema.order:
        if family.type == "gauge" and family.mode in LIVE_MODES:
            for start in family.starts:
                if start + 1 < readable:
                    memory.cells[start] = memory.cells[start + 1] = 0.0


class Peers:
    """The doubles of all workers, as this one reads them."""

    def __init__(self) -> None:
        self._memories: dict[int, Memory] = {}
        self._removed = False  # the folder, and it was said

    def read(self, schema: Schema, own_slot: int, own: Memory) -> list[Worker]:
        """Every worker that ever was, dead ones too; in one process that is this one alone."""
        if schema.directory is None:
            return [Worker(0, own, True)]
        if own.fd >= 0 and not self._removed and not os.fstat(own.fd).st_nlink:
            self._removed = True
            log.error(
                "%s was removed while the service runs: each worker tells its own numbers. Restart the service, and "
                "name a folder that stays in PROMETHEUS_MULTIPROC_DIR (systemd's RemoveIPC empties /dev/shm)",
                schema.directory,
            )
        found = []
        with schema.locked():
            slot = 0
            while (path := schema.path(f"worker-{slot}")).exists():
                if slot == own_slot and own.path == path:
                    found.append(Worker(slot, own, True))
                else:
                    memory = self._memories.get(slot)
                    if memory is None and path.stat().st_size == FILE_SIZE:
                        memory = self._memories[slot] = Memory(path, write=False)
                    if memory is not None:
                        found.append(Worker(slot, memory, bool(memory.header[READY]) and is_locked(memory.fd)))
                slot += 1
        return found or [Worker(0, own, True)]
