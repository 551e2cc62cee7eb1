# SPDX-License-Identifier: Apache-2.0
"""What happens to the doubles when a process forks: a child never counts in its parent's slot.

A child claims its own slot when it first counts; a helper process that counts nothing takes none. So does a parent that
had no slot (gunicorn's arbiter, Celery's main process): what it counts is added to what its children count. If nothing
is shared, the child has its own numbers, and a warning is logged when it first counts.
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
    """Placeholder for the doubles in a process that was just forked, or that forked without having a slot."""

    def __init__(self, storage: "Storage", before: Memory | None, *, parent: bool = False) -> None:
        self.storage = storage
        self.before = before  # what the parent counted, if that was not shared
        self.parent = parent

    def __getitem__(self, key: Any) -> Any:
        return claimed(self.storage)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        claimed(self.storage)[key] = value


class Alone:
    """Placeholder for the doubles in a forked process without a shared folder, until it counts."""

    def __init__(self, storage: "Storage", warned: mmap.mmap) -> None:
        self.storage = storage
        self.cells = storage.cells
        self.warned = warned  # one byte, shared by all forks: only the first of them logs the warning

    def __getitem__(self, key: Any) -> Any:
        return self.cells[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.storage.cells is self:
            self.storage.cells = self.cells
            if not self.warned[0]:
                self.warned[0] = 1
                log.warning(
                    "metrics: process %d was forked from a process without a shared folder; each fork has its own "
                    "counts. To share them, set PROMETHEUS_MULTIPROC_DIR before the parent process starts",
                    os.getpid(),
                )
        self.cells[key] = value


def register(storage: "Storage") -> None:
    """Prepare for forks of this process."""
    warned = mmap.mmap(-1, 1)

    def before() -> None:
        storage.schema.lock.acquire()

    def in_parent() -> None:
        if storage.directory is not None and storage.memory.fd < 0 and not isinstance(storage.cells, Forked):
            storage.cells = Forked(storage, storage.memory, parent=True)
        storage.schema.lock.release()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=lambda: _leave(storage, warned))


def _leave(storage: "Storage", warned: mmap.mmap) -> None:
    """In the child: leave the parent's slot."""
    storage.schema.lock = threading.RLock()
    if storage.directory is None:
        if not isinstance(storage.cells, Alone):
            storage.cells = Alone(storage, warned)
        return
    # flock belongs to the open file description that parent and child share: close this process's copy.
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
    """The doubles of this process, after claiming its own slot if it has none."""
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
