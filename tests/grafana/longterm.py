"""The dashboards' queries asked of Prometheus and of the store for years: how far apart are they on the same samples?

`python -m tests.grafana.longterm PROMETHEUS_URL STORE_URL [SECONDS]` asks two that run about the last SECONDS, and
prints the table of docs/remote-write.md.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass

from grafana.src.promql import NOTHING
from tests.grafana.dashboards import Target, is_number, selectors, substituted, targets
from tests.servers import PrometheusApi

Points = dict[tuple[tuple[str, str], ...], dict[float, float]]
SAME = 0.01  # relative difference that no graph shows
LATENCY = 30.0  # seconds before now that VictoriaMetrics keeps back (-search.latencyOffset)


@dataclass(frozen=True)
class Answer:
    """What both say to one query."""

    target: Target
    kind: str
    difference: float
    """Median of the points' relative differences; inf where one has series or points that the other lacks."""
    error: str = ""

    @property
    def same(self) -> bool:
        return not self.error and self.difference <= SAME


def kind(target: Target) -> str:
    """What the query does to samples, in words."""
    found = selectors(target.expr)
    if "histogram_quantile" in target.expr:
        return "percentiles"
    if any(one.function for one in found):
        return "rates, increases and others over a window"
    if str(NOTHING) in target.expr and all(":" in one.metric for one in found):
        return "single numbers of recorded series"
    return "recorded series" if all(":" in one.metric for one in found) else "other raw series"


def compare(here: PrometheusApi, there: PrometheusApi, start: float, end: float, step: int) -> Iterator[Answer]:
    """Ask every query of every dashboard, as Grafana does for this time range."""
    for target in targets():
        expr = substituted(target.expr, f"{4 * step}s", f"{end - start:.0f}s")
        try:
            first, second = (_ask(server, target, expr, start, end, step) for server in (here, there))
        except urllib.error.HTTPError as error:
            yield Answer(target, kind(target), math.inf, error.read().decode(errors="replace")[:200])
            continue
        if first or second:  # else there is nothing to compare
            yield Answer(target, kind(target), _difference(first, second))


def _ask(server: PrometheusApi, target: Target, expr: str, start: float, end: float, step: int) -> Points:
    moment = {"time": f"{end}", "start": f"{start}", "end": f"{end}", "step": f"{step}"}
    if target.instant:
        moment = {"time": f"{end}", "start": f"{start}", "end": f"{end}"}
    answer = server.api("query" if target.instant else "query_range", query=expr, **moment)["result"]
    series = {tuple(sorted(one["metric"].items())): one.get("values") or [one["value"]] for one in answer}
    numbers = {labels: {float(at): float(value) for at, value in values} for labels, values in series.items()}
    kept = {labels: {at: value for at, value in found.items() if is_number(value)} for labels, found in numbers.items()}
    return {labels: found for labels, found in kept.items() if found}


def _difference(here: Points, there: Points) -> float:
    if here.keys() != there.keys():
        return math.inf
    found = []
    for labels, points in here.items():
        for at in points.keys() | there[labels].keys():
            one, other = points.get(at, math.inf), there[labels].get(at, math.inf)
            if math.inf in (one, other):
                found.append(0.0 if one == other else math.inf)
            else:
                found.append(abs(one - other) / max(abs(one), abs(other), 1e-12))
    return statistics.median(found)


def table(answers: list[Answer]) -> list[str]:
    """Lines of a table in Markdown: for each kind how many queries are the same, and how far the others are apart."""
    lines = [
        "| queries of | number | same within 1 % | others differ by (median) | other series or points |",
        "|---|---|---|---|---|",
    ]
    for name in sorted({answer.kind for answer in answers}):
        of_kind = [answer for answer in answers if answer.kind == name]
        apart = [answer.difference for answer in of_kind if not answer.same and answer.difference < math.inf]
        others = sum(answer.difference == math.inf for answer in of_kind)
        median = f"{100 * statistics.median(apart):.1f} %" if apart else ""
        same = sum(answer.same for answer in of_kind)
        lines.append(f"| {name} | {len(of_kind)} | {same} | {median} | {others or ''} |")
    return lines


def main(prometheus: str, store: str, seconds: float = 900.0) -> None:
    here, there = PrometheusApi(), PrometheusApi()
    here.url, there.url = prometheus, store
    end = (time.time() - LATENCY) // 15 * 15
    answers = list(compare(here, there, end - seconds, end, 15))
    print("\n".join(table(answers)))
    for answer in answers:
        if not answer.same:
            print(f"{answer.difference:8.3f} {answer.kind}: {answer.target}: {answer.error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:]))
