"""The dashboards as data: what each of them and each panel must have."""

from __future__ import annotations

import re

import pytest

from grafana.src import common
from prometheus.src.settings import SETTINGS
from tests.grafana.dashboards import CONSTANTS, DASHBOARDS, ROOT, by_dashboard, panels, selectors, targets

pytestmark = pytest.mark.check


def test_uids_follow_the_file_names_and_titles_differ() -> None:
    """Links lead to uids; two dashboards of one uid or title replace one another in Grafana."""
    assert {f"sightline-{name}" for name in DASHBOARDS} == {d["uid"] for d in DASHBOARDS.values()}
    assert sorted(common.UIDS.values()) == sorted(d["uid"] for d in DASHBOARDS.values())
    assert len({d["title"] for d in DASHBOARDS.values()}) == len(DASHBOARDS)


@by_dashboard
def test_dashboard_stands_alone(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert "id" not in dashboard
    assert "__inputs" not in dashboard
    assert dashboard["schemaVersion"] == 41
    assert dashboard["editable"] is False
    assert dashboard["graphTooltip"] == 1
    assert re.fullmatch(r"\d+[smh]", dashboard["refresh"])
    assert dashboard["refresh"] not in {f"{n}s" for n in range(10)}
    assert all(i not in {"1s", "5s"} for i in dashboard["timepicker"]["refresh_intervals"])
    assert dashboard["description"]
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["type"]) == ("datasource", "datasource")
    for variable in others:
        if variable["type"] == "constant":
            assert variable["current"]["value"] == variable["query"] == CONSTANTS[variable["name"]], variable["name"]
            continue
        if variable["type"] == "custom":  # a fixed choice
            assert variable["current"]["value"] == variable["query"].partition(",")[0], variable["name"]
            continue
        several = variable["name"] not in ("pool", "datname")  # of Database, whose controls would take three lines
        assert variable["multi"] is isinstance(variable["current"]["value"], list) is several, variable["name"]
        assert variable["includeAll"], variable["name"]
        assert variable["datasource"]["uid"] == "${datasource}"


@by_dashboard
def test_panels_are_complete(name: str) -> None:
    ids, titles = [], []
    descriptions = {panel["title"]: panel["description"] for panel in panels(DASHBOARDS[name])}
    assert [title for title, text in descriptions.items() if not text.endswith((".", ")", "…"))] == [], "no sentence"
    for panel in panels(DASHBOARDS[name]):
        title = panel["title"]
        assert title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["pluginVersion"], title
        assert panel["targets"], title
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"]), title
        ids.append(panel["id"])
        titles.append(title)
    ids += [p["id"] for p in DASHBOARDS[name]["panels"] if p["type"] == "row"]
    assert len(set(ids)) == len(ids)
    assert {title for title in titles if titles.count(title) > 1} == set(), "several panels have the same title"


@by_dashboard
def test_overrides_name_no_variable(name: str) -> None:
    """Grafana fills variables into legends, but not into what overrides compare with them."""
    for panel in panels(DASHBOARDS[name]):
        named = [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]]
        assert not [options for options in named if re.search(r"\$\{?\w", options)], panel["title"]


@by_dashboard
def test_later_schema_versions_change_nothing(name: str) -> None:
    """Schema 41 is Grafana 12.0's. Version 42 rewrites overrides that hide series, 43 the transformation formatTime."""
    for panel in panels(DASHBOARDS[name]):
        overrides = [p["id"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"]]
        assert "custom.hideFrom" not in overrides, panel["title"]
        assert "formatTime" not in {t["id"] for t in panel.get("transformations", ())}, panel["title"]


def test_hidden_variables_are_the_endpoints_of_the_objectives() -> None:
    assert {common.IGNORED.name: SETTINGS.ignored, common.STREAMING.name: SETTINGS.streaming} == CONSTANTS
    assert SETTINGS.objectives.keys() == common.SLO_COLOURS.keys()


def test_the_fourteen_are_on_the_overview() -> None:
    names = {s.metric for t in targets() if t.dashboard == "overview" for s in selectors(t.expr)}
    assert names >= {
        "node_cpu_seconds_total",
        "node_memory_MemAvailable_bytes",
        "node_filesystem_avail_bytes",
        "node_network_receive_bytes_total",
        "http_requests_total",
        "http_request_duration_seconds_sum",
        "http_request_duration_seconds_bucket",
        "active_users",
        "llm_tokens_total",
        "llm_request_duration_seconds_bucket",
        "llm_prompt_length_characters_sum",
        "llm_prompt_length_characters_max",
        "db_query_duration_seconds_bucket",
        "db_pool_connections",
        "db_transactions_total",
        "instance:pg_transactions:rate5m",
        "job_slo:error_budget_remaining:ratio",
        "ALERTS",
    }


def test_pictures_are_small_and_all_shown() -> None:
    pictures = {file.name: file.stat().st_size for file in (ROOT / "docs" / "images").glob("*.png")}
    assert not {name for name, size in pictures.items() if not 15_000 < size < 400_000}, "empty, or too large"
    gallery = (ROOT / "docs" / "dashboards.md").read_text()
    shown = set(re.findall(r"\(images/([\w-]+\.png)\)", gallery))
    wanted = {f"{name}{when}.png" for name in DASHBOARDS for when in ("", "-incident")}
    assert shown >= wanted
    in_readme = set(re.findall(r"\(docs/images/([\w-]+\.png)\)", (ROOT / "README.md").read_text()))
    assert in_readme
    assert shown | in_readme == pictures.keys()
