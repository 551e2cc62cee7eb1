# SPDX-License-Identifier: Apache-2.0
"""Aggregation over workers: which metrics are in the storage, and the values of their groups.

Counters, summaries and histograms are summed over all workers, dead ones included. Gauges are aggregated by their
`multiprocess_mode`, most of them over living workers; the modes `all` and `liveall` add the label `worker` instead.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from ..storage import LIVE_MODES, Family, Worker, storage

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_count", "_sum"),
    "histogram": ("_bucket", "_count", "_sum"),
}


class SharedMetric(Collector):
    """A metric kept in the storage, without an object per combination of label values.

    It is registered under its name. Its families may differ in label names or bounds, as those of two middlewares with
    different options do.
    """

    def __init__(self, type_: str, name: str, help_: str, registry: CollectorRegistry = REGISTRY) -> None:
        self.type, self.name, self.help = type_, name, help_
        registry.register(self)

    def family(self, labelnames: Sequence[str], bounds: Sequence[float] = (), mode: str = "") -> Family:
        return storage.family(self.type, self.name, self.help, labelnames, bounds, mode)

    def describe(self) -> Iterable[Metric]:
        return [Metric(self.name, self.help, self.type)]

    def collect(self) -> Iterable[Metric]:
        """Samples for prometheus_client's own tools; render() does not need them."""
        if storage.directory is not None:
            storage.log_once(
                "prometheus_client's own exposition (start_http_server, make_asgi_app, generate_latest) covers this "
                f"process only; render() of {__name__.rpartition('.')[0]} covers all workers"
            )
        return [filled(next(iter(self.describe())), storage.schema.by_name.get(self.name, ()), storage.peers())]


def metric_in_storage(collector: Any) -> Metric | None:
    """The description of a metric whose numbers are in the storage, None for everything else."""
    if isinstance(collector, SharedMetric):
        return next(iter(collector.describe()))
    if not isinstance(collector, MetricWrapperBase):
        return None
    metric = next(iter(collector.describe()))
    families = storage.schema.by_name.get(metric.name)
    if metric.type not in SUFFIXES or not families:
        return None
    objects = getattr(collector, "_metrics", None)  # of a metric with labels: one per combination
    here, owned = 1 if objects is None else len(objects), sum(family.owned for family in families)
    # Some objects are older than the storage; or, in a single process, some belong to another registry.
    if here > owned or (here < owned and storage.directory is None):
        return None
    return None if has_function(collector) else metric


def has_function(collector: Any) -> bool:
    """Whether it is a gauge with set_function(), which replaces a method of the object, so that no number is stored."""
    children = getattr(collector, "_metrics", {}).copy().values()
    return any("_child_samples" in vars(child) for child in (collector, *children))


def duplicates(families: Sequence[Family]) -> frozenset[int]:
    """The first cells of groups whose labels an earlier family of the same metric already has."""
    found: set[int] = set()
    seen: set[frozenset[tuple[str, str]]] = set()
    for family in families if len(families) > 1 else ():
        for labelvalues, start in list(family.groups.items()):
            labels = frozenset(zip(family.labelnames, labelvalues, strict=True))
            if labels in seen:
                found.add(start)
            seen.add(labels)
    return frozenset(found)


def worker_label(family: Family) -> str:
    """The name of the label that distinguishes workers: `worker`, unless the metric already has such a label."""
    name = "worker"
    while name in family.labelnames:
        name = f"telemetry_{name}"
    return name


def shown(family: Family, workers: Sequence[Worker]) -> list[tuple[Sequence[Worker], dict[str, str]]]:
    """Which workers are aggregated for each sample, and the `worker` label of a mode that does not aggregate."""
    if family.type == "gauge" and family.mode in ("", "all", "liveall") and storage.directory is not None:
        name = worker_label(family)
        return [([worker], {name: str(worker.slot)}) for worker in workers]
    return [(workers, {})]


def total(family: Family, start: int, workers: Sequence[Worker]) -> list[float] | None:
    """The numbers of a group, aggregated over the workers; None if no worker has it."""
    end = start + family.width
    rows: list[list[float]] = []
    for _, memory, alive in workers:
        if family.type != "gauge" or alive or family.mode not in LIVE_MODES:
            row = memory.numbers(start, end)
            if row is not None:
                rows.append(row)
    if not rows:
        return None
    if family.type == "gauge":
        if family.mode.endswith("mostrecent"):
            return [max(rows)[1]]
        if family.mode.endswith(("min", "max")):
            return [(min if family.mode.endswith("min") else max)(row[1] for row in rows)]
    if len(rows) == 1:
        return rows[0][1:]
    return [sum(column, 0.0) for column in zip(*rows, strict=True)][1:]


def unshared(family: Family) -> Iterator[tuple[dict[str, str], list[float]]]:
    """The labels and numbers of groups for which there was no space in the shared folder, with the label `worker`."""
    for labelvalues, start in list(family.unshared.items()):
        row = storage.cells.numbers(start, start + family.width)
        if row[0]:
            labels = dict(zip(family.labelnames, labelvalues, strict=True))
            yield {**labels, worker_label(family): str(storage.worker)}, row[1:]


def filled(
    metric: Metric, families: Iterable[Family], workers: Sequence[Worker], left_out: frozenset[int] = frozenset()
) -> Metric:
    """The metric with the samples of these families, except the groups at `left_out`."""
    for family in families:
        for labelvalues, start in list(family.groups.items()):
            if start in left_out:
                continue
            labels = dict(zip(family.labelnames, labelvalues, strict=True))
            for of, more in shown(family, workers):
                numbers = total(family, start, of)
                if numbers is not None:
                    metric.samples.extend(_samples(family, {**labels, **more}, numbers))
        for labels, numbers in unshared(family):
            metric.samples.extend(_samples(family, labels, numbers))
    return metric


def _samples(family: Family, labels: dict[str, str], numbers: list[float]) -> Iterator[Sample]:
    if family.type != "histogram":
        for suffix, number in zip(SUFFIXES[family.type], numbers, strict=True):
            yield Sample(family.name + suffix, labels, number)
        return
    count = 0.0
    for bound, number in zip((*family.bounds, float("inf")), numbers[1:], strict=True):
        count += number
        yield Sample(f"{family.name}_bucket", {**labels, "le": float_text(bound)}, count)
    yield Sample(f"{family.name}_count", labels, count)
    yield Sample(f"{family.name}_sum", labels, numbers[0])


def float_text(value: float) -> str:
    """As Prometheus' Go client writes it: `0.5`, `1e-05`, `+Inf`, `NaN`."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
