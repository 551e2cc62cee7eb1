"""Reads the committed dashboards as data: panels, queries, and the selectors inside of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from grafana.src.promql import NOTHING, QUIET

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
by_dashboard = pytest.mark.parametrize("name", DASHBOARDS)
BUILT_IN = {
    "__rate_interval",
    "__range",
    "__interval",
    "__value",
    "__field",
    "__data",
    "__url_time_range",
}
# Hidden variables with one constant value each, the same on every dashboard that has them.
CONSTANTS: dict[str, str] = {
    variable["name"]: variable["query"]
    for dashboard in DASHBOARDS.values()
    for variable in dashboard["templating"]["list"]
    if variable["type"] == "constant"
}
# Fixed choices, at their default.
CHOICES: dict[str, str] = {
    variable["name"]: variable["current"]["value"]
    for dashboard in DASHBOARDS.values()
    for variable in dashboard["templating"]["list"]
    if variable["type"] == "custom"
}


def is_number(value: float) -> bool:
    """Whether a panel draws it: not NaN, nor what tiles without data show as words."""
    return not math.isnan(value) and value not in (NOTHING, QUIET)


@dataclass(frozen=True)
class Target:
    """One query of one panel."""

    dashboard: str
    panel: str
    kind: str
    expr: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}: {self.expr}"


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: frozenset[tuple[str, str, str]]
    function: str
    """The function that takes the range, empty for an instant selector."""
    window: str
    pinned: bool
    """Evaluated at an end of the time range, whatever the point in the graph: `@ start()` or `@ end()`."""


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels that show something, those of collapsed rows too."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def targets() -> list[Target]:
    return [
        Target(name, panel["title"], panel["type"], target["expr"], target["instant"])
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def substituted(expr: str, rate_interval: str = "60s", span: str = "3600s") -> str:
    """The query as Grafana sends it with All chosen everywhere."""
    for name, value in {**CONSTANTS, **CHOICES}.items():
        expr = expr.replace(f"${name}", value)
    expr = expr.replace("$__rate_interval", rate_interval).replace("$__range", span)
    expr = expr.replace("$__interval", "15s")
    return re.sub(r"\$(?!\{?\d)\{?\w+\}?", ".*", expr)


def selectors(expr: str) -> list[Selector]:
    """Every selector of a query, with the function around its range."""
    for name, value in CHOICES.items():
        expr = expr.replace(f"${name}", value)
    expr = expr.replace("$__rate_interval", "61s").replace("$__range", "62s")
    return list(_selectors(promql_parser.parse(expr), ""))


def _selectors(node: Any, function: str) -> Iterator[Selector]:
    if isinstance(node, promql_parser.MatrixSelector):
        seconds = int(node.range.total_seconds())
        window = {61: "$__rate_interval", 62: "$__range"}.get(seconds, f"{seconds}s")
        yield _selector(node.vector_selector, function, window)
    elif isinstance(node, promql_parser.VectorSelector):
        yield _selector(node, "", "")
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _selectors(argument, node.func.name)
    else:
        for name in ("expr", "lhs", "rhs", "param"):
            child = getattr(node, name, None)
            if child is not None:
                yield from _selectors(child, function)


def _selector(node: Any, function: str, window: str) -> Selector:
    matchers = frozenset((m.name, str(m.op), m.value) for m in node.matchers.matchers)
    return Selector(node.name or "", matchers, function, window, pinned=node.at is not None)
