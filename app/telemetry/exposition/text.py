# SPDX-License-Identifier: Apache-2.0
"""The lines of a metric that is kept in the storage, written directly from its doubles.

# HELP http_requests_total HTTP requests by route template and status.
# TYPE http_requests_total counter
http_requests_total{method="GET",endpoint="/items/{item_id}",status_code="200"} 7
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import isfinite

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from ..storage import Family, Worker, label_text, valid
from .metrics import SUFFIXES, float_text, shown, total, unshared

BATCH = 64  # groups per piece of text, the unit after which a scrape may yield


def header(metric: Metric, openmetrics: bool) -> str:
    help_ = valid(metric.documentation).replace("\\", r"\\").replace("\n", r"\n")
    name = metric.name
    if openmetrics:
        unit = f"# UNIT {name} {metric.unit}\n" if metric.unit else ""
        help_ = help_.replace('"', r"\"")
    else:
        unit = ""
        name += "_total" if metric.type == "counter" else ""
    return f"# HELP {name} {help_}\n# TYPE {name} {metric.type}\n{unit}"


def family_lines(
    family: Family, workers: Sequence[Worker], exemplars: dict[int, Exemplar], left_out: frozenset[int] = frozenset()
) -> Iterator[str]:
    """The lines of a family except the groups at `left_out`, BATCH groups at a time."""
    template = _template(family)
    parts = [(of, label_text(tuple(more), tuple(more.values()))) for of, more in shown(family, workers)]
    for first in range(0, len(family.starts), BATCH):
        lines = []
        for text, start in zip(family.texts[first : first + BATCH], family.starts[first : first + BATCH], strict=True):
            for of, more in parts:
                numbers = None if start in left_out else total(family, start, of)
                if numbers is None:
                    continue
                line = _group_lines(family, template, f"{text},{more}" if text and more else text or more, numbers)
                lines.append(_with_exemplars(line, family, start, exemplars) if exemplars else line)
        yield "".join(lines)
    for labels, numbers in unshared(family):
        yield _group_lines(family, template, label_text(tuple(labels), tuple(labels.values())), numbers)


def _group_lines(family: Family, template: str, labels: str, numbers: Sequence[float]) -> str:
    braces = f"{{{labels}}}" if labels else ""
    if family.type != "histogram":
        return template % tuple(part for number in numbers for part in (braces, _number(number)))
    before_le = f"{labels}," if labels else ""
    buckets = list(accumulate(numbers[1:]))
    values: list[object] = [part for bucket in buckets for part in (before_le, bucket)]
    values += (braces, buckets[-1])
    if _has_sum(family):
        values += (braces, repr(numbers[0]) if isfinite(numbers[0]) else float_text(numbers[0]))
    return template % tuple(values)


def _has_sum(family: Family) -> bool:
    """False if observations may be negative: their sum is not a counter, and OpenMetrics forbids it."""
    return not family.bounds or family.bounds[0] >= 0


def _template(family: Family) -> str:
    """A %-format of a group's lines: before each number its labels, in braces except for buckets."""
    name = family.name.replace("%", "%%")
    if family.type == "histogram":
        bounds = [*map(float_text, family.bounds), "+Inf"]
        lines = [f'{name}_bucket{{%sle="{bound}"}} %d\n' for bound in bounds]
        lines.append(f"{name}_count%s %d\n")
        if _has_sum(family):
            lines.append(f"{name}_sum%s %s\n")
        return "".join(lines)
    return "".join(f"{name}{suffix}%s %s\n" for suffix in SUFFIXES[family.type])


def _number(value: float) -> str:
    value = float(value)  # a gauge may have been set to an int
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isfinite(value) else float_text(value)


def _with_exemplars(text: str, family: Family, start: int, exemplars: dict[int, Exemplar]) -> str:
    """Append exemplars to the lines of the counter or buckets that have one."""
    first = start + 2 if family.type == "histogram" else start + 1
    count = {"counter": 1, "histogram": family.width - 2}.get(family.type, 0)
    if not any(cell in exemplars for cell in range(first, first + count)):
        return text
    lines = text.splitlines()
    for number in range(count):
        exemplar = exemplars.get(first + number)
        if exemplar is not None:
            labels = label_text(tuple(exemplar.labels), tuple(exemplar.labels.values()))
            lines[number] += f" # {{{labels}}} {exemplar.value!r} {exemplar.timestamp:.3f}"
    return "\n".join(lines) + "\n"
