# SPDX-License-Identifier: Apache-2.0
"""What happens to the doubles when a process forks: a child never counts in its parent's slot.

The first number that the child touches claims a slot of its own; one that counts nothing (a helper process) takes none.
"""

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from .layout import Memory
from .slots import claim

if TYPE_CHECKING:
    from .cells import Storage

log = logging.getLogger("sightline_telemetry")


class Forked:
    """Stands for the doubles in a process that was just forked."""

    def __init__(self, storage: "Storage", before: Memory | None) -> None:
        self.storage = storage
        self.before = before  # what the parent counted, where that was not shared

    def __getitem__(self, key: Any) -> Any:
        return claimed(self.storage)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        claimed(self.storage)[key] = value


def register(storage: "Storage") -> None:
    """Prepare for forks of this process."""

    def before() -> None:
        storage.schema.lock.acquire()

    def in_parent() -> None:
        storage.schema.lock.release()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=lambda: _leave(storage))


def _leave(storage: "Storage") -> None:
    """In the child: leave the parent's slot."""
    storage.schema.lock = threading.RLock()
    if storage.directory is None or isinstance(storage.cells, Forked):
        return
    # The lock belongs to the open file that parent and child share: keep no copy of it.
    storage.schema.close()
    before = None
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
        try:
            storage.use(*claim(storage.schema))
            storage.carry_over(forked.before)
        except OSError as error:
            log.warning("metrics of this process are not shared: %s", error)
            storage.use_private_memory()
        return storage.cells
