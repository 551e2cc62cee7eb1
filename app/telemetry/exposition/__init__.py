# SPDX-License-Identifier: Apache-2.0
"""The /metrics text of one process or of all workers of a service: text 0.0.4 or 1.0, OpenMetrics.

Metrics kept in the storage are written straight from its doubles, or by prometheus_client's encoder where their names
need quotes; everything else that is registered (custom collectors) goes through its collect() in the worker that
answers. Process metrics are given for each living worker, with the label `worker`.

    metrics   which metrics are in the storage, and their numbers over all workers
    text      their lines                                         formats   which format a scrape gets
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
# Text 0.0.4 has these suffixes in the header, also where there is no sample.
_HEADED = {"counter": "_total", "info": "_info"}
_NOT_PLAIN = re.compile(r"[^a-zA-Z0-9_:]|^[0-9]")
_NOT_PLAIN_LABEL = re.compile(r"[^a-zA-Z0-9_]|^[0-9]")

Piece = str | Callable[[], str]  # text, or what makes it and may take its time


class _Collected:
    """Not registered: passes metrics to prometheus_client's own encoder."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect


def _broken(names: Iterable[str]) -> bool:
    """Whether one has a line break at its end, which prometheus_client lets pass."""
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
    """The content type, and the text in pieces of a fraction of a millisecond each.

    Custom collectors are rendered by a function instead, to be called in turn, since they may take any time.
    `accept` is the request's header; `names`, if given, are the names of samples or metrics to give and no others.
    """
    encoder, content_type = choose(accept)
    text = _all_pieces(registry, encoder, content_type, frozenset(names))
    if names:
        text = _filtered(text, frozenset(names))
    return content_type, chain(text, ["# EOF\n"] if content_type.startswith(_OPENMETRICS) else [])


def render(registry: CollectorRegistry = REGISTRY, accept: str = "", names: Collection[str] = ()) -> bytes:
    """All metrics of the service as one text, see pieces()."""
    _, text = pieces(registry, accept, names)
    return "".join(piece if isinstance(piece, str) else piece() for piece in text).encode()


class _Scrape:
    """One text: what it says of whom, and which names are taken."""

    def __init__(self, encoder: Callable[[Collector], bytes], content_type: str, names: frozenset[str]) -> None:
        self.encoder = encoder
        self.openmetrics = openmetrics = content_type.startswith(_OPENMETRICS)
        self.utf8 = "allow-utf-8" in content_type
        self.names = names
        self.workers = storage.peers()
        self.shared = storage.directory is not None
        self.exemplars = newest_exemplars([memory for _, memory, _ in self.workers]) if openmetrics else {}
        self.taken: set[str] = set()
        self.described: set[str] = set()  # metrics in the storage that had their turn

    def collected(self, what: str, collect: Callable[[], Iterable[Metric]]) -> Callable[[], str]:
        """What makes the text of a collector. One that fails takes nothing else along."""

        def piece() -> str:
            try:
                metrics = _Collected(lambda: map(self.writable, collect()))
                return self.encoder(metrics).decode().removesuffix("# EOF\n")
            except Exception:
                storage.log_once(f"/metrics: {what} failed; its metrics are missing", exc_info=True)
                return ""

        return piece

    def writable(self, metric: Metric) -> Metric:
        """Without samples that are another one's as they are written, or whose labels are no labels then.

        prometheus_client allows an empty name, a line break at its end, and in an Info `__name__`; without quotes
        `a-b` and `a_b` are one name.
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
        """A name as the text has it."""
        return name if self.utf8 else not_plain.sub("_", name)

    def custom(self, collector: Collector, owners: Mapping[str, Collector]) -> Iterator[Metric]:
        """What a collector of the application gives, one metric of each name, without what is another's or twice."""
        merged: dict[str, Metric] = {}
        for given in collector.collect():
            known = merged.get(given.name)
            if known is None:
                merged[given.name] = copy(given)  # the object is the collector's, which may keep it
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
        """The text of a metric in the storage, nothing where another metric has one of its names."""
        self.described.add(metric.name)
        families = [family for family in storage.schema.by_name.get(metric.name, ()) if family.type == metric.type]
        # A metric without labels in this worker is described by the other workers.
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
        """Whether none of a metric's names is in the text yet, as they are written there."""
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
        """What other workers defined and this one did not."""
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
    # The registry hands out its collectors under a private name only; without it, all go through collect().
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
                yield scrape.collected(what, collector.collect)()  # at once: set_function() may ask the event loop
        elif scrape.shared and isinstance(collector, ProcessCollector):
            yield scrape.collected(what, lambda: _process_metrics(scrape.workers))
        elif not (scrape.shared and isinstance(collector, GCCollector)):  # of this worker alone: it would come and go
            yield scrape.collected(what, partial(scrape.custom, collector, owners))
    if scrape.shared and registry is REGISTRY:
        yield from scrape.of_others()


def _filtered(text: Iterable[Piece], names: frozenset[str]) -> Iterator[Piece]:
    """Only the lines of these samples, or of the metrics with these names."""
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
