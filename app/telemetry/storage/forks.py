# SPDX-License-Identifier: Apache-2.0
"""What happens to the doubles when a process forks: a child never counts in its parent's slot.

The first number that the child touches claims a slot of its own; one that counts nothing (a helper process) takes none.
So does a parent that had none (gunicorn's arbiter, Celery's main process): what it counts is added to its children's.
Where nothing is shared, the child's numbers are its own, which is logged once it counts.
"""

import logging
import mmap
import os
import threading
from typing import TYPE_CHECKING, Any

from .layout import Memory
from .slots import claim

if TYPE_CHECKING:
    from .cells import Storage

log = logging.getLogger("sightline_telemetry")


class Forked:
    """Stands for the doubles in a process that was just forked, or has forked and had no slot."""

    def __init__(self, storage: "Storage", before: Memory | None, *, parent: bool = False) -> None:
        self.storage = storage
        self.before = before  # what the parent counted, where that was not shared
        self.parent = parent

    def __getitem__(self, key: Any) -> Any:
        return claimed(self.storage)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        claimed(self.storage)[key] = value


class Alone:
    """Stands for the doubles in a process that was forked where nothing is shared, until it counts."""

    def __init__(self, storage: "Storage", said: mmap.mmap) -> None:
        self.storage = storage
        self.cells = storage.cells
        self.said = said  # a byte that all forks share: one of them says it

    def __getitem__(self, key: Any) -> Any:
        return self.cells[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.storage.cells is self:
            self.storage.cells = self.cells
            if not self.said[0]:
                self.said[0] = 1
                log.warning(
                    "metrics: process %d was forked from one that shares nothing; each fork counts for itself alone. "
                    "To share, name a folder in PROMETHEUS_MULTIPROC_DIR before the first of them starts",
                    os.getpid(),
                )
        self.cells[key] = value


def register(storage: "Storage") -> None:
    """Prepare for forks of this process."""
    said = mmap.mmap(-1, 1)

    def before() -> None:
        storage.schema.lock.acquire()

    def in_parent() -> None:
        if storage.directory is not None and storage.memory.fd < 0 and not isinstance(storage.cells, Forked):
            storage.cells = Forked(storage, storage.memory, parent=True)
        storage.schema.lock.release()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=lambda: _leave(storage, said))


def _leave(storage: "Storage", said: mmap.mmap) -> None:
    """In the child: leave the parent's slot."""
    storage.schema.lock = threading.RLock()
    if storage.directory is None:
        if not isinstance(storage.cells, Alone):
            storage.cells = Alone(storage, said)
        return
    # The lock belongs to the open file that parent and child share: keep no copy of it.
    storage.schema.close()
    if isinstance(storage.cells, Forked):
        storage.cells.parent = False
        return
    before = storage.preloaded
    if storage.memory.fd < 0:
        before = storage.memory
    else:
        storage.memory.close()
        storage.memory = Memory(None)
    storage.cells = Forked(storage, before)


def claimed(storage: "Storage") -> Any:
    """The doubles of this process, in a slot of its own."""
    with storage.schema.lock:
        forked = storage.cells
        if not isinstance(forked, Forked):
            return forked
        if forked.parent:
            storage.preloaded = forked.before  # for children that it forks later
        try:
            storage.use(*claim(storage.schema))
            storage.carry_over(forked.before, parent=forked.parent)
        except OSError as error:
            log.warning("metrics of this process are not shared: %s", error)
            storage.use_private_memory()
        return storage.cells
