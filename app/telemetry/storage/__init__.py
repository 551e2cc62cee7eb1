# SPDX-License-Identifier: Apache-2.0
"""Where metric values are stored: doubles (64-bit floats) in memory that all workers of a service can read.

layout    the files and their layout                  schema    what each double means
cells     the doubles of this process (`storage`)     slots     which worker counts in which file
values    the values of prometheus_client's metrics   forks     what happens when a process forks
folder    which folder the workers share              files     disk space, locks, memory maps
spill     series for which there is no disk space     gil       locks for Python without a GIL
truncation    files that are truncated while in use
"""

from .cells import Storage, directory, newest_exemplars, storage, worker
from .files import map_file
from .gil import locked
from .layout import SCRATCH
from .schema import LABEL_NAME, Family, label_text, valid
from .slots import LIVE_MODES, Worker

__all__ = [
    "LABEL_NAME",
    "LIVE_MODES",
    "SCRATCH",
    "Family",
    "Storage",
    "Worker",
    "directory",
    "label_text",
    "locked",
    "map_file",
    "newest_exemplars",
    "storage",
    "valid",
    "worker",
]
