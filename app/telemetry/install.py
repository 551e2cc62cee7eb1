# SPDX-License-Identifier: Apache-2.0
"""Puts the storage under prometheus_client: the one module that changes something outside of this package.

Importing the package installs it, since a metric that exists earlier would stay each worker's own. What changes, for
the whole process:

- `prometheus_client.values.ValueClass`, which its metrics call to make their numbers, becomes `new_value`. Its own
  `PROMETHEUS_MULTIPROC_DIR` mode sets the same name.
- `_created` series are off (`prometheus_client.disable_created_metrics()`): a number of bytes per series, and wrong as
  soon as a worker is replaced.
- The process prepares for being forked (`os.register_at_fork`).

Until the first metric is defined nothing is written anywhere but the folder of several workers.
"""

import logging
import os
from pathlib import Path

import prometheus_client
import prometheus_client.values
from prometheus_client.metrics import MetricWrapperBase

from .exposition import SharedMetric
from .storage import forks, storage
from .storage.folder import master_pid, private_folder
from .storage.values import new_value

log = logging.getLogger("sightline_telemetry")


UNSHARED = SharedMetric(
    "gauge",
    "telemetry_unshared_series",
    "Series that a worker counts in its own memory, since the folder that the workers share is full or cannot be used.",
)


def installed() -> bool:
    return prometheus_client.values.ValueClass is new_value


def install(directory: str | os.PathLike[str] | None = None) -> None:
    """Put the storage under prometheus_client. To be called before any metric exists; again changes nothing.

    Metrics that exist already are left as they are, each worker's own, which is worth a warning.

    Args:
        directory: the folder that the workers share. Its owner must be this user and its mode 0700. By default
            PROMETHEUS_MULTIPROC_DIR in the environment, else a private folder where this is a worker of uvicorn or
            gunicorn.
    """
    if installed():
        return
    _share(directory or os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    if storage.directory is not None:
        _warn_of_earlier_metrics()
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    prometheus_client.values.ValueClass = new_value
    forks.register(storage)
    # Not a Gauge of prometheus_client: it is needed where other metrics have no room.
    cell = storage.own(UNSHARED.family((), mode="livesum"), (), alone=False)
    if cell is not None:
        storage.report_unshared(cell + 1)


def _share(explicit: str | os.PathLike[str] | None) -> None:
    """Find a folder: the explicit one, else a private one where this is a worker, else none.

    The private one comes first where it is there: another worker had to leave the explicit one.
    """
    master = master_pid()
    folders = [Path(explicit)] if explicit else []
    if master is not None:
        private = private_folder(master)
        folders.insert(0 if private.exists() else len(folders), private)
    for folder in folders:
        try:
            storage.share(folder, claim_slot=master != os.getpid())
            return
        except OSError as error:
            storage.refused()
            log.warning("metrics of this process are not shared in %s: %s", folder, error)


def _warn_of_earlier_metrics() -> None:
    package = __name__.rpartition(".")[0]
    collectors = getattr(prometheus_client.REGISTRY, "_collector_to_names", ())
    earlier = [
        next(iter(found.describe())).name
        for found in collectors
        if isinstance(found, MetricWrapperBase) and getattr(found, "_metrics", True)
    ]
    if earlier:
        log.warning(
            "metrics defined before %s was imported are not shared between the workers: %s. Import %s first",
            package,
            ", ".join(earlier),
            package,
        )
