"""What a tile shows: the value of its query, its text and its colour, as Grafana derives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.grafana.dashboards import DASHBOARDS, is_number, panels, substituted
from tests.servers import PrometheusApi


@dataclass(frozen=True)
class Tile:
    """value: None where the query has no result. text: what stands there in words, "" for a plain number."""

    value: float | None
    text: str
    colour: str

    @property
    def look(self) -> tuple[str, str]:
        """Text and colour, for a share that is no round number."""
        return self.text, self.colour


def tile(prometheus: PrometheusApi, dashboard: str, title: str, span: str = "300s") -> Tile:
    """The tile of this title with All chosen everywhere, at this moment.

    Raises:
        AssertionError: there is no such tile, or its query has several results: a tile shows one number.
    """
    (panel,) = (p for p in panels(DASHBOARDS[dashboard]) if p["type"] == "stat" and p["title"] == title)
    (target,) = panel["targets"]
    found = prometheus.query(substituted(target["expr"], span=span))
    assert len(found) <= 1, f"{dashboard}: {title} has {len(found)} values"
    defaults = panel["fieldConfig"]["defaults"]
    for labels, value in found.items():
        mapped = _mapped(defaults, value)
        if panel["options"]["textMode"] != "value":
            (name,) = (label for key, label in labels if target["legendFormat"] == f"{{{{{key}}}}}")
            text = f"{mapped[0]} {name}" if mapped and panel["options"]["textMode"] == "value_and_name" else name
            return Tile(value if is_number(value) else None, text, mapped[1] if mapped else _colour(defaults, value))
        if mapped and not is_number(value):
            return Tile(None, *mapped)
        return Tile(value, *mapped) if mapped else Tile(value, "", _colour(defaults, value))
    (null,) = (m["options"] for m in defaults["mappings"] if m["type"] == "special" and m["options"]["match"] == "null")
    return Tile(None, null["result"]["text"], null["result"]["color"])


def _mapped(defaults: dict[str, Any], value: float) -> tuple[str, str] | None:
    """Text and colour of a value that is mapped to words."""
    for mapping in defaults["mappings"]:
        options = mapping["options"]
        if mapping["type"] == "value" and (result := options.get(f"{value:.15g}")):
            return result["text"], result["color"]
        if mapping["type"] == "range" and options["from"] <= value <= options["to"]:
            return options["result"]["text"], _colour(defaults, value)
    return None


def _colour(defaults: dict[str, Any], value: float) -> str:
    """The colour of the last threshold that the value has reached."""
    reached = [s["color"] for s in defaults["thresholds"]["steps"] if s["value"] is None or value >= s["value"]]
    return str(reached[-1])
