"""What has room where: tiles, legends, titles and tables at 1280 pixels, and a grid without gaps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.grafana.dashboards import DASHBOARDS, by_dashboard, panels
from tests.prometheus.rules import alerts

pytestmark = pytest.mark.check


@by_dashboard
def test_tiles_are_six_to_a_line(name: str) -> None:
    tiles = [panel["gridPos"] for panel in panels(DASHBOARDS[name]) if panel["type"] == "stat"]
    assert {(box["w"], box["h"]) for box in tiles} == {(4, 3)}
    assert len(tiles) % 6 == 0


@by_dashboard
def test_legends_fit(name: str) -> None:
    """At 1280 pixels beside Grafana's menu, half the width has room for a graph and a table of names and one number."""
    for panel in panels(DASHBOARDS[name]):
        legend = panel["options"].get("legend", {})
        if legend.get("displayMode") != "table":
            continue
        assert legend["placement"] == "right", panel["title"]
        assert panel["gridPos"]["w"] >= 12, panel["title"]
        assert len(legend["calcs"]) == 1, panel["title"]


# Grafana leaves a dashboard 948 of 1280 pixels beside its menu; 8 are between two panels.
COLUMN = (948 + 8) / 24
PADDING = 12  # around the text of a cell


@by_dashboard
def test_titles_are_not_cut_off(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        # In Grafana's font; beside the title are its icon, and room for the menu.
        assert 7.25 * len(panel["title"]) <= COLUMN * panel["gridPos"]["w"] - 8 - 71.5, panel["title"]


def _columns(panel: dict[str, Any]) -> tuple[dict[str, float], float]:
    """A table's columns that have a width, and at 1280 pixels that of each other one: these share what is left."""
    (organize,) = (t["options"] for t in panel["transformations"] if t["id"] == "organize")
    widths = {
        override["matcher"]["options"]: one["value"]
        for override in panel["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "custom.width"
    }
    left = COLUMN * panel["gridPos"]["w"] - 8 - 18 - sum(widths.values())
    return widths, left / (len(organize["renameByName"]) - len(widths))


@by_dashboard
def test_tables_have_room_for_names(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        if panel["type"] == "table":
            _, rest = _columns(panel)
            assert rest >= 110, panel["title"]


@pytest.mark.parametrize("name", ["overview", "monitoring"])
def test_names_of_alerts_are_not_cut_off(name: str) -> None:
    (table,) = (p for p in panels(DASHBOARDS[name]) if p["title"] == "Firing alerts")
    longest = max(len(rule.name) for rule in alerts())
    widths, rest = _columns(table)
    assert set(widths) == {"Severity", "For"}
    assert rest >= 7.4 * max(longest, len("postgres postgres-exporter:9187")) + PADDING  # in Grafana's font


def _cells(shown: list[dict[str, Any]]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in shown:
        box = panel["gridPos"]
        for x in range(box["x"], box["x"] + box["w"]):
            for y in range(box["y"], box["y"] + box["h"]):
                assert 0 <= x < 24, panel["title"]
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
    rows = {y for _, y in taken}
    assert rows == set(range(min(rows), max(rows) + 1)), "an empty line"
    assert len(taken) == 24 * len(rows), "a gap"


@by_dashboard
def test_grid_has_no_gaps_and_no_overlaps(name: str) -> None:
    _cells(DASHBOARDS[name]["panels"])
    for row in DASHBOARDS[name]["panels"]:
        if row.get("panels"):
            assert row["collapsed"]
            _cells(row["panels"])
