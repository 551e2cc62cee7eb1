# SPDX-License-Identifier: Apache-2.0
"""Puts the storage under prometheus_client: the one module that changes something outside of this package.

Importing the package installs it, because metrics defined earlier are not shared between the workers. What changes, for
the whole process:

- `prometheus_client.values.ValueClass`, which its metrics call to create their values, becomes `new_value`.
  prometheus_client's own multiprocess mode (`PROMETHEUS_MULTIPROC_DIR`) replaces the same attribute.
- `_created` series are disabled (`prometheus_client.disable_created_metrics()`): they cost one series per counter,
  summary and histogram, and are wrong as soon as a worker is replaced.
- Fork handlers are registered (`os.register_at_fork`).

Files are written only if several workers share a folder.
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
    "Series that a worker counts in its own memory, because the workers' shared folder is full or unusable.",
)


def installed() -> bool:
    return prometheus_client.values.ValueClass is new_value


def install(directory: str | os.PathLike[str] | None = None) -> None:
    """Put the storage under prometheus_client, before any metric is defined. A second call changes nothing.

    Metrics that already exist are not shared between the workers; if there are several, a warning names these metrics.
    If no folder can be used, the numbers stay in this process and a warning gives the reason.

    Args:
        directory: the folder that the workers share, owned by this user, mode 0700. By default that of the environment
            variable PROMETHEUS_MULTIPROC_DIR, otherwise a private folder if this process is a worker of uvicorn or
            gunicorn, otherwise none.
    """
    if installed():
        return
    _share(directory or os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    if storage.directory is not None:
        _warn_of_earlier_metrics()
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    prometheus_client.values.ValueClass = new_value
    forks.register(storage)
    # Not a prometheus_client Gauge: it must work when there is no space for other metrics.
    cell = storage.own(UNSHARED.family((), mode="livesum"), (), alone=False)
    if cell is not None:
        storage.report_unshared(cell + 1)


def _share(explicit: str | os.PathLike[str] | None) -> None:
    """Share a folder: the explicit one, otherwise a private one if this process is a worker, otherwise none.

    A private one that already exists comes first: another worker could not use the explicit one.
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
