"""The /metrics text of one process or of all workers of a service: text 0.0.4 or 1.0, OpenMetrics.

Metrics kept in the storage are written straight from its doubles, added up over the workers, or by prometheus_client's
encoder where their names need quotes; everything else that is registered (custom collectors) goes through its collect()
in the worker that answers. Process metrics are given for each living worker, with the label `worker`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from .storage import LIVE_MODES, Family, Memory, directory, install, label_text, storage, worker

__all__ = ["SharedMetric", "directory", "install", "render", "worker"]

BATCH = 64  # groups per piece of text: what a scrape does between two looks at the clock
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_count", "_sum"),
    "histogram": ("_bucket", "_count", "_sum"),
}

Worker = tuple[int, Memory, bool]  # slot, doubles, whether alive
Piece = str | Callable[[], str]  # text, or what makes it and may take its time


class SharedMetric(Collector):
    """A metric kept in the storage without an object per combination of label values.

    Registered under its name; its families may differ in label names or bounds (two middlewares with other options).
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
        return [_filled(next(iter(self.describe())), storage.by_name.get(self.name, ()), storage.peers())]


def _filled(metric: Metric, families: Iterable[Family], workers: Sequence[Worker]) -> Metric:
    """The metric with the samples of these families."""
    for family in families:
        for labelvalues, start in list(family.groups.items()):
            labels = dict(zip(family.labelnames, labelvalues, strict=True))
            for shown, more in _shown(family, workers):
                numbers = _total(family, start, shown)
                if numbers is not None:
                    metric.samples.extend(_samples(family, {**labels, **more}, numbers))
    return metric


def _shown(family: Family, workers: Sequence[Worker]) -> list[tuple[Sequence[Worker], dict[str, str]]]:
    """Whose numbers are added up for a sample, and its label `worker` where each has one of its own."""
    if family.type == "gauge" and family.mode in ("", "all", "liveall") and storage.directory is not None:
        return [([worker_], {"worker": str(worker_[0])}) for worker_ in workers]
    return [(workers, {})]


def _samples(family: Family, labels: dict[str, str], numbers: list[float]) -> Iterator[Sample]:
    if family.type != "histogram":
        for suffix, number in zip(_SUFFIXES[family.type], numbers, strict=True):
            yield Sample(family.name + suffix, labels, number)
        return
    total = 0.0
    for bound, number in zip((*family.bounds, float("inf")), numbers[1:], strict=True):
        total += number
        yield Sample(f"{family.name}_bucket", {**labels, "le": _bound(bound)}, total)
    yield Sample(f"{family.name}_count", labels, total)
    yield Sample(f"{family.name}_sum", labels, numbers[0])


def _total(family: Family, start: int, workers: Sequence[Worker]) -> list[float] | None:
    """The numbers of a group over the workers, None when no worker has it."""
    end = start + family.width
    rows: list[list[float]] = []
    for _, memory, alive in workers:
        if end <= memory.readable() and (family.type != "gauge" or alive or family.mode not in LIVE_MODES):
            row = memory.numbers(start, end)
            if row[0]:
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


def _template(family: Family) -> str:
    r"""A %-format of a group's lines; \0 stands for its labels with a comma, \1 for its labels in braces."""
    name = family.name.replace("%", "%%")
    if family.type == "histogram":
        bounds = [*map(_bound, family.bounds), "+Inf"]
        lines = [f'{name}_bucket{{\0le="{bound}"}} %d\n' for bound in bounds]
        lines.append(f"{name}_count\1 %d\n")
        if not family.bounds or family.bounds[0] >= 0:
            lines.append(f"{name}_sum\1 %r\n")
        return "".join(lines)
    return "".join(f"{name}{suffix}\1 %s\n" for suffix in _SUFFIXES[family.type])


def _bound(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _family_lines(family: Family, workers: Sequence[Worker], exemplars: dict[int, Exemplar]) -> Iterator[str]:
    """The lines of a family, BATCH groups at a time."""
    template = _template(family)
    shown = [(of, label_text(tuple(more), tuple(more.values()))) for of, more in _shown(family, workers)]
    for first in range(0, len(family.starts), BATCH):
        lines = []
        for text, start in zip(family.texts[first : first + BATCH], family.starts[first : first + BATCH], strict=True):
            for of, more in shown:
                labels = f"{text},{more}" if text and more else text or more
                numbers = _total(family, start, of)
                if numbers is None:
                    continue
                line = template.replace("\1", f"{{{labels}}}" if labels else "")
                if family.type == "histogram":
                    buckets = list(accumulate(numbers[1:]))
                    values: Iterable[Any] = (*buckets, buckets[-1], numbers[0])
                    line = line.replace("\0", f"{labels}," if labels else "")
                    if family.bounds and family.bounds[0] < 0:
                        values = (*buckets, buckets[-1])
                else:
                    values = map(_number, numbers)
                line %= tuple(values)
                if exemplars:
                    line = _with_exemplars(line, family, start, exemplars)
                lines.append(line)
        yield "".join(lines)


def _with_exemplars(text: str, family: Family, start: int, exemplars: dict[int, Exemplar]) -> str:
    """Exemplars at the end of the counter's or buckets' lines that have one."""
    first = start + 2 if family.type == "histogram" else start + 1
    count = {"counter": 1, "histogram": family.width - 2}.get(family.type, 0)
    if not any(cell in exemplars for cell in range(first, first + count)):
        return text
    lines = text.splitlines()
    for number in range(count):
        exemplar = exemplars.get(first + number)
        if exemplar is not None:
            labels = ",".join(
                '{}="{}"'.format(k, v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))
                for k, v in exemplar.labels.items()
            )
            lines[number] += f" # {{{labels}}} {exemplar.value!r} {exemplar.timestamp:.3f}"
    return "\n".join(lines) + "\n"


def _header(metric: Metric, openmetrics: bool) -> str:
    help_ = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    name = metric.name
    if openmetrics:
        unit = f"# UNIT {name} {metric.unit}\n" if metric.unit else ""
        help_ = help_.replace('"', r"\"")
    else:
        unit = ""
        name += "_total" if metric.type == "counter" else ""
    return f"# HELP {name} {help_}\n# TYPE {name} {metric.type}\n{unit}"


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
        pid = storage.pid(memory)
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            target = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                target.add_sample(sample.name, {**sample.labels, "worker": str(slot)}, sample.value)
    return merged.values()


def _metric_in_storage(collector: Any) -> Metric | None:
    """The description of a metric whose numbers are in the storage, None for everything else."""
    if isinstance(collector, SharedMetric):
        return next(iter(collector.describe()))
    if not isinstance(collector, MetricWrapperBase):
        return None
    metric = next(iter(collector.describe()))
    families = storage.by_name.get(metric.name)
    if metric.type not in _SUFFIXES or not families:
        return None
    objects = getattr(collector, "_metrics", None)  # of a metric with labels, one for each combination
    here, owned = 1 if objects is None else len(objects), sum(family.owned for family in families)
    # Some objects are older than the storage; or, alone in one process, some are another registry's metric.
    if here > owned or (here < owned and storage.directory is None):
        return None
    if metric.type == "gauge":
        # set_function() replaces a method of the one object: such a gauge has no number in the storage.
        children = getattr(collector, "_metrics", {}).copy().values()
        if any("_child_samples" in vars(child) for child in (collector, *children)):
            return None
    return metric


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
    exemplars = storage.read_exemplars([memory for _, memory, _ in workers]) if openmetrics else {}
    shared = storage.directory is not None
    written = set()

    def collected(collect: Callable[[], Iterable[Metric]]) -> Callable[[], str]:
        return lambda: encoder(_Collected(collect)).decode().removesuffix("# EOF\n")

    def stored(metric: Metric, families: Sequence[Family]) -> Iterator[Piece]:
        written.add(metric.name)
        if not all(family.plain for family in families):
            yield collected(lambda: [_filled(metric, families, workers)])
            return
        if names and not names & {metric.name, *(metric.name + suffix for suffix in _SUFFIXES[metric.type])}:
            return
        yield _header(metric, openmetrics)
        for family in families:
            yield from _family_lines(family, workers, exemplars)

    # The registry hands out its collectors under a private name only; without it, all go through collect().
    collectors = getattr(registry, "_collector_to_names", None)
    target_info = registry.get_target_info()
    if target_info:
        metric = Metric("target", "Target metadata", "info")
        metric.add_sample("target_info", target_info, 1)
        yield collected(lambda: [metric])
    for collector in list(collectors) if collectors is not None else [registry]:
        stored_metric = _metric_in_storage(collector)
        if stored_metric is not None:
            families = storage.by_name.get(stored_metric.name, ())
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
        for name, families in list(storage.by_name.items()):
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
