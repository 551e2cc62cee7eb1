# SPDX-License-Identifier: Apache-2.0
"""The lines of a metric that is kept in the storage, straight from its doubles.

# HELP http_requests_total HTTP requests by route template and status.
# TYPE http_requests_total counter
http_requests_total{method="GET",endpoint="/items/{item_id}",status_code="200"} 7
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from ..storage import Family, Worker, label_text
from .metrics import SUFFIXES, bound_text, shown, total

BATCH = 64  # groups per piece of text: what a scrape does between two looks at the clock


def header(metric: Metric, openmetrics: bool) -> str:
    help_ = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    name = metric.name
    if openmetrics:
        unit = f"# UNIT {name} {metric.unit}\n" if metric.unit else ""
        help_ = help_.replace('"', r"\"")
    else:
        unit = ""
        name += "_total" if metric.type == "counter" else ""
    return f"# HELP {name} {help_}\n# TYPE {name} {metric.type}\n{unit}"


def family_lines(family: Family, workers: Sequence[Worker], exemplars: dict[int, Exemplar]) -> Iterator[str]:
    """The lines of a family, BATCH groups at a time."""
    template = _template(family)
    parts = [(of, label_text(tuple(more), tuple(more.values()))) for of, more in shown(family, workers)]
    for first in range(0, len(family.starts), BATCH):
        lines = []
        for text, start in zip(family.texts[first : first + BATCH], family.starts[first : first + BATCH], strict=True):
            for of, more in parts:
                labels = f"{text},{more}" if text and more else text or more
                numbers = total(family, start, of)
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


def _template(family: Family) -> str:
    r"""A %-format of a group's lines; \0 stands for its labels with a comma, \1 for its labels in braces."""
    name = family.name.replace("%", "%%")
    if family.type == "histogram":
        bounds = [*map(bound_text, family.bounds), "+Inf"]
        lines = [f'{name}_bucket{{\0le="{bound}"}} %d\n' for bound in bounds]
        lines.append(f"{name}_count\1 %d\n")
        if not family.bounds or family.bounds[0] >= 0:
            lines.append(f"{name}_sum\1 %r\n")
        return "".join(lines)
    return "".join(f"{name}{suffix}\1 %s\n" for suffix in SUFFIXES[family.type])


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


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
            labels = label_text(tuple(exemplar.labels), tuple(exemplar.labels.values())).replace("%%", "%")
            lines[number] += f" # {{{labels}}} {exemplar.value!r} {exemplar.timestamp:.3f}"
    return "\n".join(lines) + "\n"
