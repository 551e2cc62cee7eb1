"""A dashboard, and the JSON it becomes (Grafana's classic schema)."""

from __future__ import annotations

from dataclasses import dataclass

from .layout import place
from .model import Annotation, AnyVariable, Json, Row

# Grafana 12.0 writes 41; newer versions, 13 included, migrate from it. A higher number would stand for fields that 12.0
# does not have.
SCHEMA_VERSION = 41


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; `to_json` numbers and places its panels."""

    uid: str
    title: str
    description: str
    tags: tuple[str, ...]
    variables: tuple[AnyVariable, ...]
    annotations: tuple[Annotation, ...]
    links: tuple[Json, ...]
    rows: tuple[Row, ...]

    def to_json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": list(self.tags),
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,  # shared crosshair
            "liveNow": False,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m", "30m", "1h"]},
            "timezone": "browser",
            "weekStart": "",
            "fiscalYearStartMonth": 0,
            "links": list(self.links),
            "annotations": {"list": [_BUILT_IN_ANNOTATION, *(a.to_json() for a in self.annotations)]},
            "templating": {"list": [_DATASOURCE_VARIABLE, *(v.to_json() for v in self.variables)]},
            "panels": place(self.rows, self.uid),
        }


_BUILT_IN_ANNOTATION: Json = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}

_DATASOURCE_VARIABLE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "description": "The Prometheus that all panels query",
    "query": "prometheus",
    "regex": "",
    "options": [],
    "includeAll": False,
    "multi": False,
    "refresh": 1,
    "hide": 1,  # its label
    "skipUrlSync": False,
}
