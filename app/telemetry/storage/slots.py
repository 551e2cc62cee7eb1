# SPDX-License-Identifier: Apache-2.0
"""Slots: which worker counts in which file.

Slot N is the file `worker-N`, locked with flock for as long as the worker lives. A new worker takes the first free one,
so a successor continues where its predecessor stopped, and nothing has to be cleaned up or merged.
"""

from pathlib import Path
from typing import NamedTuple

from .files import is_held, is_locked
from .layout import FIRST_CELL, READY, Doubles, Memory, Peer
from .schema import Schema

# Gauges in these modes belong to a living worker and disappear with it; the others keep their last value.
LIVE_MODES = frozenset({"", "all", "liveall", "livesum", "livemin", "livemax", "livemostrecent"})


class Worker(NamedTuple):
    """The worker of one slot, its numbers, and whether it is alive."""

    slot: int
    memory: Doubles
    alive: bool


def claim(schema: Schema) -> tuple[int, Memory]:
    """Take the first slot that no living worker holds.

    Raises:
        OSError: the folder cannot be read or written.
    """
    with schema.locked():
        slot = 0
        while True:
            try:
                memory = Memory(schema.path(f"worker-{slot}"))
                break
            except BlockingIOError:
                slot += 1
        memory.header[READY] = 0
        schema.refresh()
        memory.reserve(FIRST_CELL)
        _forget_gauges(schema, memory)
        memory.open_to_readers()
    return slot, memory


def in_use(schema: Schema) -> bool:
    """Whether a living worker counts in the folder."""
    try:
        with schema.locked():
            return any(is_held(path) for path in schema.path("schema").parent.glob("worker-*"))
    except OSError:
        return False


def _forget_gauges(schema: Schema, memory: Memory) -> None:
    used = memory.used()
    for family in schema.order:
        if family.type == "gauge" and family.mode in LIVE_MODES:
            for start in family.starts:
                if start + 1 < used:
                    memory.cells[start] = memory.cells[start + 1] = 0.0


class Peers:
    """Reads the doubles of all workers."""

    def __init__(self) -> None:
        self._peers: dict[Path, Peer] = {}

    def read(self, schema: Schema, own: Worker, own_path: Path | None, *, whole: bool) -> list[Worker]:
        """All workers, dead ones included; in a single process only this one.

        Args:
            own: this worker, which may count in the file at `own_path`.
            whole: include this worker even if it does not.
        """
        if schema.directory is None:
            return [own]
        found = []
        with schema.locked():
            slot = 0
            while (path := schema.path(f"worker-{slot}")).exists():
                if path == own_path:
                    found.append(own)
                else:
                    peer = self._look(path)
                    found.append(Worker(slot, peer, bool(peer.header[READY]) and is_locked(peer.fd)))
                slot += 1
        if whole and own not in found:
            found.append(own._replace(slot=slot))
        return found or [own]

    def _look(self, path: Path) -> Peer:
        if path in self._peers:
            self._peers[path].look()
        else:
            self._peers[path] = Peer(path)
        return self._peers[path]
