"""What a dashboard is made of here, and the JSON it becomes (Grafana's classic schema).

A panel cannot be written without title, description and unit, and rows refuse to leave gaps in the grid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import Any, Literal

from .errors import DashboardError
from .promql import expand

Json = dict[str, Any]
# Grafana's, as far as they are used here; it shows any other text as it is, behind the number.
UNIT = re.compile(
    "none|short|percentunit|s|ms|bytes|decbytes|Bps|reqps|ops|iops|currency[A-Z]{3}|(count|suffix|prefix):.+"
)
PLUGIN_VERSION = "12.0.0"
SCRAPE_INTERVAL = "15s"  # prometheus/prometheus.yml, and the data source's timeInterval

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """One PromQL query.

    instant: only the last value (tables). exemplar: Grafana asks for its series' exemplars, too.
    """

    expr: str
    legend: str = "__auto"
    instant: bool = False
    format: Literal["time_series", "table", "heatmap"] = "time_series"
    exemplar: bool = False

    def to_json(self, ref_id: str) -> Json:
        return {
            "refId": ref_id,
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expand(self.expr),
            "legendFormat": self.legend,
            "format": self.format,
            "range": not self.instant,
            "instant": self.instant,
            "exemplar": self.exemplar,
        }


@dataclass(frozen=True)
class Link:
    """A link behind a value: to another dashboard or a page."""

    title: str
    url: str
    new_tab: bool = False

    def to_json(self) -> Json:
        return {"title": self.title, "url": self.url, "targetBlank": self.new_tab}


@dataclass(frozen=True)
class Panel:
    """A panel of any kind; `panels` has the functions that make one.

    width: columns out of 24, None until a row sizes it. height: grid units of 30 px and a gap.
    """

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int | None
    height: int
    options: Json
    custom: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    links: tuple[Link, ...] = ()

    def sized(self, width: int, height: int | None = None) -> Panel:
        return replace(self, width=width, height=height or self.height)

    def to_json(self, panel_id: int, x: int, y: int) -> Json:
        parts = {"title": self.title, "description": self.description, "unit": self.unit, "query": self.queries}
        if missing := [name for name, value in parts.items() if not value]:
            raise DashboardError(f"panel {self.title!r} has no {' and no '.join(missing)}")
        if not UNIT.fullmatch(self.unit):
            raise DashboardError(
                f"panel {self.title!r} has the unit {self.unit!r}, which is none that UNIT in model.py lists; "
                "your own are count:name/s, suffix:name or prefix:name"
            )
        defaults: Json = {"unit": self.unit, **self.defaults}
        if self.custom:
            defaults["custom"] = self.custom
        if self.links:
            defaults["links"] = [link.to_json() for link in self.links]
        panel: Json = {
            "id": panel_id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "pluginVersion": PLUGIN_VERSION,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": self.options,
            "targets": [q.to_json(letter) for q, letter in zip(self.queries, ascii_uppercase, strict=False)],
        }
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        return panel


@dataclass(frozen=True)
class Row:
    """A titled row of panels, placed left to right; each line of them fills the 24 columns exactly.

    A row without a title (the strip on top) has no heading.
    """

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


@dataclass(frozen=True)
class Variable:
    """A drop-down filled by a query for label values, with All.

    It has no description: its icon takes the room for which the controls would need another line.
    multi: several can be chosen, which takes more room, too.
    """

    name: str
    label: str
    query: str
    multi: bool = True

    def to_json(self) -> Json:
        text, value = (["All"], ["$__all"]) if self.multi else ("All", "$__all")
        everything = {"selected": True, "text": text, "value": value}
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": DATASOURCE,
            "query": {"query": expand(self.query), "refId": f"Variable-{self.name}"},
            "regex": "",
            "includeAll": True,
            "multi": self.multi,
            "allValue": ".*",
            "current": everything,
            "options": [],
            "refresh": 2,  # with every change of the time range: instances come and go
            "sort": 1,
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True)
class Constant:
    """A hidden value that the queries share: the one place in the JSON to change it."""

    name: str
    label: str
    value: str
    description: str

    def to_json(self) -> Json:
        return {
            "type": "constant",
            "name": self.name,
            "label": self.label,
            "description": self.description,
            "query": self.value,
            "current": {"selected": True, "text": self.value, "value": self.value},
            "options": [],
            "hide": 2,
            "skipUrlSync": True,
        }


@dataclass(frozen=True)
class Choice:
    """A drop-down with fixed values and a single selection."""

    name: str
    label: str
    values: tuple[str, ...]
    description: str

    def to_json(self) -> Json:
        options = [{"selected": not i, "text": value, "value": value} for i, value in enumerate(self.values)]
        return {
            "type": "custom",
            "name": self.name,
            "label": self.label,
            "description": self.description,
            "query": ",".join(self.values),
            "current": options[0],
            "options": options,
            "includeAll": False,
            "multi": False,
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True)
class Annotation:
    """Marks on every time series: a line for a single point, a region for consecutive points."""

    name: str
    expr: str
    colour: str
    title: str
    text: str = ""
    tags: str = ""

    def to_json(self) -> Json:
        expr = expand(self.expr)
        return {
            "name": self.name,
            "datasource": DATASOURCE,
            "enable": True,
            "hide": True,  # no switch at the top, where the variables need the space
            "iconColor": self.colour,
            # Grafana 12.0 reads expr and step, later versions read target.
            "expr": expr,
            "step": SCRAPE_INTERVAL,
            "target": {"refId": "Annotation", "expr": expr, "interval": SCRAPE_INTERVAL},
            "titleFormat": self.title,
            "textFormat": self.text,
            "tagKeys": self.tags,
            "useValueForTime": False,
        }


AnyVariable = Variable | Constant | Choice
