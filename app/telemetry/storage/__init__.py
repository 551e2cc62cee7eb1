# SPDX-License-Identifier: Apache-2.0
"""Where the numbers live: doubles in memory that all workers of a service can read.

layout    the files and what lies where in them       schema    what each double means
cells     the doubles of this process (`storage`)     slots     which worker counts in which file
values    prometheus_client's numbers                 forks     what happens to them when a process forks
folder    which folder the workers share              files     room, locks, maps
gil       one step at a time without a GIL
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
