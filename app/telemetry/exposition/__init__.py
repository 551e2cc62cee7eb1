# SPDX-License-Identifier: Apache-2.0
"""The /metrics text of one process or of all workers of a service: text 0.0.4 or 1.0, OpenMetrics.

Metrics kept in the storage are written straight from its doubles, or by prometheus_client's encoder where their names
need quotes; everything else that is registered (custom collectors) goes through its collect() in the worker that
answers. Process metrics are given for each living worker, with the label `worker`.

    metrics   which metrics are in the storage, and their numbers over all workers
    text      their lines
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..storage import Family, Worker, directory, newest_exemplars, storage, worker
from .metrics import SUFFIXES, SharedMetric, filled, metric_in_storage
from .text import family_lines, header

__all__ = ["Piece", "SharedMetric", "directory", "pieces", "render", "worker"]

Piece = str | Callable[[], str]  # text, or what makes it and may take its time


class _Collected:
    """Registered with nobody: hands metrics to prometheus_client's own encoder."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect


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

    What custom collectors give is made by a function instead, to be called in turn: nobody knows how long it takes.
    `accept` is the request's header; `names`, if given, are the names of samples or metrics to give and no others.
    """
    encoder, content_type = choose_encoder(accept)
    openmetrics = content_type.startswith("application/openmetrics-text")
    text = _all_pieces(registry, encoder, openmetrics, frozenset(names))
    if names:
        text = _filtered(text, frozenset(names))
    return content_type, chain(text, ["# EOF\n"] if openmetrics else [])


def render(registry: CollectorRegistry = REGISTRY, accept: str = "", names: Collection[str] = ()) -> bytes:
    """All metrics of the service as one text, see pieces()."""
    _, text = pieces(registry, accept, names)
    return "".join(piece if isinstance(piece, str) else piece() for piece in text).encode()


def _all_pieces(
    registry: CollectorRegistry, encoder: Callable[[Collector], bytes], openmetrics: bool, names: frozenset[str]
) -> Iterator[Piece]:
    workers = storage.peers()
    exemplars = newest_exemplars([memory for _, memory, _ in workers]) if openmetrics else {}
    shared = storage.directory is not None
    written = set()

    def collected(collect: Callable[[], Iterable[Metric]]) -> Callable[[], str]:
        return lambda: encoder(_Collected(collect)).decode().removesuffix("# EOF\n")

    def stored(metric: Metric, families: Sequence[Family]) -> Iterator[Piece]:
        written.add(metric.name)
        if not all(family.plain for family in families):
            yield collected(lambda: [filled(metric, families, workers)])
            return
        if names and not names & {metric.name, *(metric.name + suffix for suffix in SUFFIXES[metric.type])}:
            return
        yield header(metric, openmetrics)
        for family in families:
            yield from family_lines(family, workers, exemplars)

    # The registry hands out its collectors under a private name only; without it, all go through collect().
    collectors = getattr(registry, "_collector_to_names", None)
    target_info = registry.get_target_info()
    if target_info:
        metric = Metric("target", "Target metadata", "info")
        metric.add_sample("target_info", target_info, 1)
        yield collected(lambda: [metric])
    for collector in list(collectors) if collectors is not None else [registry]:
        stored_metric = metric_in_storage(collector)
        if stored_metric is not None:
            families = storage.schema.by_name.get(stored_metric.name, ())
            # A metric of which this worker has no labels yet is told by what the others have.
            yield from stored(stored_metric, [family for family in families if family.local] or families[-1:])
        elif shared and isinstance(collector, ProcessCollector):
            yield collected(lambda: _process_metrics(workers))
        elif not (shared and isinstance(collector, GCCollector)):  # of this worker alone: it would come and go
            piece = collected(collector.collect)
            if isinstance(collector, MetricWrapperBase):  # set_function() may ask the event loop
                written.update(described.name for described in collector.describe())
                yield piece()
            else:
                yield piece
    if shared and registry is REGISTRY:  # what other workers defined and this one did not
        for name, families in list(storage.schema.by_name.items()):
            if name not in written and not any(family.local for family in families):
                latest = families[-1]
                yield from stored(Metric(name, latest.help, latest.type), [latest])


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
