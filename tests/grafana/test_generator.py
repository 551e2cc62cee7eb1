"""The generator's answers to mistakes in a dashboard's source: one sentence that says what to change, no traceback."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grafana.src import __main__ as command
from grafana.src import document, model
from grafana.src.document import Dashboard
from grafana.src.errors import DashboardError
from grafana.src.layout import halves, thirds
from grafana.src.model import Panel, Query, Row
from grafana.src.panels import timeseries
from grafana.src.promql import expand

pytestmark = pytest.mark.check

ROOT = Path(__file__).resolve().parents[2]


def _panel(title: str = "Requests", **settings: Any) -> Panel:
    return timeseries(title, "Requests per second.", Query("up"), unit="reqps", **settings)


def _dashboard(*rows: Row) -> Dashboard:
    return Dashboard("uid", "Title", "Description.", (), (), (), (), rows)


def test_a_width_that_the_row_would_override_is_refused_by_name() -> None:
    assert [panel.width for panel in halves((_panel(), _panel(width=12)))] == [12, 12]
    with pytest.raises(DashboardError, match=r"panel 'Requests' sets width=8, but its row .* Remove width="):
        halves((_panel(width=8),))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("", (_panel(),)), r"panel 'Requests' has no width"),
        (Row("", thirds((_panel(), _panel()))), r"row '' ends at column 16 of 24"),
        (Row("", (_panel().sized(12, 7), _panel().sized(12, 8))), "is not as high as the panels beside it"),
        (Row("", (_panel().sized(16), _panel().sized(12))), "ends at column 28 of 24"),
        (Row("", (_panel("").sized(24),)), "panel '' has no title"),
        (Row("", (replace(_panel(), unit="requests/s").sized(24),)), "the unit 'requests/s', which is none that UNIT"),
        (Row("", (replace(_panel(), unit="", description="").sized(24),)), "has no description and no unit"),
    ],
)
def test_a_row_with_a_gap_or_an_overlap_is_refused(row: Row, message: str) -> None:
    with pytest.raises(DashboardError, match=message):
        _dashboard(row).to_json()


def test_an_unknown_abbreviation_is_refused() -> None:
    with pytest.raises(DashboardError, match=r"unknown abbreviation @nobody.*known: app"):
        expand("up{@nobody}")


def test_the_command_prints_a_line_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One for each mistake, of all dashboards."""

    def broken(_: Any, uid: str) -> list[model.Json]:
        if uid in ("sightline-http", "sightline-host"):
            raise DashboardError(f"{uid}: panel 'X' has no width")
        return []

    monkeypatch.setattr(document, "place", broken)
    monkeypatch.setattr(sys, "argv", ["grafana.src", "--check"])
    assert command.main() == 1
    assert capsys.readouterr().err == (
        "grafana/src: sightline-http: panel 'X' has no width\ngrafana/src: sightline-host: panel 'X' has no width\n"
    )


def test_the_check_names_every_stale_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name, content in command.rendered().items():
        (tmp_path / name).write_text(content if name != "http.json" else "{}")
    (tmp_path / "left-over.json").write_text("{}")
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["grafana.src", "--check"])
    assert command.main() == 1
    assert "http.json, left-over.json. Run: make generate" in capsys.readouterr().err


def test_generated_is_committed() -> None:
    done = subprocess.run([sys.executable, "-m", "grafana.src", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
