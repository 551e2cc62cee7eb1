# SPDX-License-Identifier: Apache-2.0
"""The /metrics text of one process or of all workers of a service: text 0.0.4 or 1.0, OpenMetrics.

Metrics kept in the storage are written directly from its doubles, or by prometheus_client's encoder if their names need
quotes. Everything else that is registered (custom collectors) is collected in the worker that answers the scrape.
Process metrics are exposed for each living worker, with the label `worker`.

    metrics   which metrics are in the storage, and their numbers over all workers
    text      the lines of these metrics                          formats   which format a scrape gets
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import chain

from prometheus_client import REGISTRY, CollectorRegistry, Enum, GCCollector, Info, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..storage import Worker, directory, newest_exemplars, storage, worker
from .formats import choose
from .metrics import SUFFIXES, SharedMetric, duplicates, filled, has_function, metric_in_storage
from .text import family_lines, header

__all__ = ["Piece", "SharedMetric", "directory", "pieces", "render", "worker"]

_OPENMETRICS = "application/openmetrics-text"
# Text 0.0.4 has these suffixes in the header, even if there is no sample.
_HEADED = {"counter": "_total", "info": "_info"}
_NOT_PLAIN = re.compile(r"[^a-zA-Z0-9_:]|^[0-9]")
_NOT_PLAIN_LABEL = re.compile(r"[^a-zA-Z0-9_]|^[0-9]")

Piece = str | Callable[[], str]  # text, or a function that returns it and may be slow


class _Collected:
    """An unregistered collector that passes metrics to prometheus_client's encoder."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect


def _broken(names: Iterable[str]) -> bool:
    """Whether a name ends with a line break, which prometheus_client accepts."""
    return any(name.endswith("\n") for name in names)


def _process_metrics(workers: Sequence[Worker]) -> Iterable[Metric]:
    """Process metrics of each living worker, under their usual names with the label `worker`."""
    merged: dict[str, Metric] = {}
    for slot, memory, alive in workers:
        if not alive:
            continue
        pid = memory.pid()
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            target = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                target.add_sample(sample.name, {**sample.labels, "worker": str(slot)}, sample.value)
    return merged.values()


def pieces(
    registry: CollectorRegistry = REGISTRY, accept: str = "", names: Collection[str] = ()
) -> tuple[str, Iterator[Piece]]:
    """The content type, and the exposition text in pieces that take a fraction of a millisecond each.

    Custom collectors may take any time: their pieces are functions that return text, to be called in order.

    Args:
        registry: the metrics to expose.
        accept: the Accept header of the request.
        names: of the samples or metrics to include; all if empty.
    """
    encoder, content_type = choose(accept)
    text = _all_pieces(registry, encoder, content_type, frozenset(names))
    if names:
        text = _filtered(text, frozenset(names))
    return content_type, chain(text, ["# EOF\n"] if content_type.startswith(_OPENMETRICS) else [])


def render(registry: CollectorRegistry = REGISTRY, accept: str = "", names: Collection[str] = ()) -> bytes:
    """All metrics of the service as one text; for the arguments see pieces()."""
    _, text = pieces(registry, accept, names)
    return "".join(piece if isinstance(piece, str) else piece() for piece in text).encode()


class _Scrape:
    """The state of one rendering: workers, exemplars, and the names that are already in the text."""

    def __init__(self, encoder: Callable[[Collector], bytes], content_type: str, names: frozenset[str]) -> None:
        self.encoder = encoder
        self.openmetrics = openmetrics = content_type.startswith(_OPENMETRICS)
        self.utf8 = "allow-utf-8" in content_type
        self.names = names
        self.workers = storage.peers()
        self.shared = storage.directory is not None
        self.exemplars = newest_exemplars([memory for _, memory, _ in self.workers]) if openmetrics else {}
        self.taken: set[str] = set()
        self.described: set[str] = set()  # metrics in the storage that were rendered

    def collected(self, what: str, collect: Callable[[], Iterable[Metric]]) -> Callable[[], str]:
        """A function that returns the text of a collector, or nothing if it fails: the others are not affected."""

        def piece() -> str:
            try:
                metrics = _Collected(lambda: map(self.writable, collect()))
                return self.encoder(metrics).decode().removesuffix("# EOF\n")
            except Exception:
                storage.log_once(f"/metrics: {what} failed; its metrics are missing", exc_info=True)
                return ""

        return piece

    def writable(self, metric: Metric) -> Metric:
        """The metric without samples that would be duplicates or have invalid label names in the text.

        prometheus_client accepts an empty label name, one that ends with a line break, and `__name__` in an Info; in a
        format without quotes `a-b` and `a_b` are the same name.
        """
        found = {}
        for sample in metric.samples:
            labels = {self.written(name, _NOT_PLAIN_LABEL): value for name, value in sample.labels.items()}
            valid = labels.keys().isdisjoint({"", "__name__"}) and not _broken(sample.labels)
            if valid and len(labels) == len(sample.labels):
                found[sample.name, frozenset(labels.items())] = sample
            else:
                given = ", ".join(map(repr, sample.labels))
                storage.log_once(
                    f"/metrics: samples of {metric.name} are missing: invalid or duplicate label names: {given}"
                )
        metric.samples = list(found.values())
        return metric

    def written(self, name: str, not_plain: re.Pattern[str] = _NOT_PLAIN) -> str:
        """A name as it is written in the text."""
        return name if self.utf8 else not_plain.sub("_", name)

    def custom(self, collector: Collector, owners: Mapping[str, Collector]) -> Iterator[Metric]:
        """The metrics of a custom collector, merged by name, without those whose names belong to another collector."""
        merged: dict[str, Metric] = {}
        for given in collector.collect():
            known = merged.get(given.name)
            if known is None:
                merged[given.name] = copy(given)  # the collector may keep the object itself
            elif known.type == given.type:
                known.samples = [*known.samples, *given.samples]
        for metric in merged.values():
            names = {metric.name, *(sample.name for sample in metric.samples)}
            if metric.type in _HEADED:
                names.add(metric.name + _HEADED[metric.type])
            if any(owners.get(name, collector) is not collector for name in names):
                self.collides(metric.name)
            elif self.take(metric.name, names):
                yield metric

    def stored(self, metric: Metric) -> Iterator[Piece]:
        """The text of a metric in the storage; nothing if another metric has one of its names."""
        self.described.add(metric.name)
        families = [family for family in storage.schema.by_name.get(metric.name, ()) if family.type == metric.type]
        # If this worker has no family of the metric, those of other workers are used.
        families = [family for family in families if family.local] or families[-1:]
        own = {metric.name, *(metric.name + suffix for suffix in SUFFIXES[metric.type])}
        if not self.take(metric.name, own):
            return
        left_out = duplicates(families)
        if left_out:
            storage.log_once(f"/metrics: {metric.name} is defined twice with the same labels; the later one is missing")
        if _NOT_PLAIN.search(metric.name) or not all(family.plain for family in families):
            yield self.collected(metric.name, lambda: [filled(metric, families, self.workers, left_out)])
        elif not self.names or self.names & own:
            yield header(metric, self.openmetrics)
            for family in families:
                yield from family_lines(family, self.workers, self.exemplars, left_out)

    def take(self, metric: str, names: Collection[str]) -> bool:
        """Reserve a metric's names, as they are written; False if one of them is already in the text."""
        written = {self.written(name) for name in names}
        if _broken(names):
            storage.log_once(f"/metrics: {metric!r} is missing: it has a line break at its end")
            return False
        if written & self.taken:
            self.collides(metric)
            return False
        self.taken |= written
        return True

    @staticmethod
    def collides(metric: str) -> None:
        storage.log_once(f"/metrics: {metric} is missing: its names collide with another metric's")

    def of_others(self) -> Iterator[Piece]:
        """Metrics that other workers have defined and this one has not."""
        for name, families in list(storage.schema.by_name.items()):
            if name not in self.described and not any(family.local for family in families):
                yield from self.stored(Metric(name, families[-1].help, families[-1].type))


def _all_pieces(
    registry: CollectorRegistry, encoder: Callable[[Collector], bytes], content_type: str, names: frozenset[str]
) -> Iterator[Piece]:
    scrape = _Scrape(encoder, content_type, names)
    target_info = registry.get_target_info()
    if target_info:
        metric = Metric("target", "Target metadata", "info")
        metric.add_sample("target_info", target_info, 1)
        yield scrape.collected("target_info", lambda: [metric])
    # The registry has its collectors in a private attribute only; without it, all are collected at once.
    collectors = getattr(registry, "_collector_to_names", None)
    owners = getattr(registry, "_names_to_collectors", {})
    for collector in list(collectors) if collectors is not None else [registry]:
        what = type(collector).__name__
        stored_metric = metric_in_storage(collector)
        if stored_metric is not None:
            yield from scrape.stored(stored_metric)
        elif isinstance(collector, MetricWrapperBase):
            described = [metric.name for metric in collector.describe()]
            if scrape.shared and (isinstance(collector, Info | Enum) or has_function(collector)):
                storage.log_once(
                    f"/metrics: {', '.join(described)} is not shared between workers, as Info, Enum and set_function() "
                    "cannot be: each response has the value of the worker that sends it"
                )
            if scrape.take(described[0], [*described, *(collectors or {}).get(collector, ())]):
                yield scrape.collected(what, collector.collect)()  # not in a thread: may use the event loop
        elif scrape.shared and isinstance(collector, ProcessCollector):
            yield scrape.collected(what, lambda: _process_metrics(scrape.workers))
        elif not (scrape.shared and isinstance(collector, GCCollector)):  # only of this worker
            yield scrape.collected(what, partial(scrape.custom, collector, owners))
    if scrape.shared and registry is REGISTRY:
        yield from scrape.of_others()


def _filtered(text: Iterable[Piece], names: frozenset[str]) -> Iterator[Piece]:
    """Only the lines of samples or metrics with these names."""
    header, whole = "", False
    for piece in text:
        if not isinstance(piece, str):
            yield partial(_filtered_piece, piece, names)
            continue
        kept = []
        for line in piece.splitlines(keepends=True):
            if line.startswith("#"):
                if line.startswith("# HELP "):
                    header, whole = "", line.split(" ", 3)[2] in names
                header += line
            elif whole or line.partition(" ")[0].partition("{")[0] in names:
                kept.append(header + line)
                header = ""
        yield "".join(kept)


def _filtered_piece(make: Callable[[], str], names: frozenset[str]) -> str:
    return "".join(piece for piece in _filtered([make()], names) if isinstance(piece, str))
