"""Queries: windows, variables, records instead of raw series, and what must agree with the rules."""

from __future__ import annotations

import re
from typing import Any

import promql_parser
import pytest
import yaml

from grafana.src.model import SCRAPE_INTERVAL
from grafana.src.promql import WAITING
from tests.grafana.dashboards import BUILT_IN, DASHBOARDS, ROOT, by_dashboard, panels, selectors, substituted, targets
from tests.prometheus.rules import alerts, recordings

pytestmark = pytest.mark.check

TARGETS = targets()
RECORDS = {rule.name: rule.expr for rule in recordings()}
RECORDED = RECORDS.keys()
# One quantity, one window: that of the record, or the resolution of the graph where nothing is recorded.
WINDOWS = {
    "overview": {"300s", "$__rate_interval"},  # of hosts, as on Host
    "http": {"300s"},
    "llm": {"300s"},
    "database": {"300s"},
    "loadtest": {"60s", "$__rate_interval"},
    "host": {"$__rate_interval"},
    "monitoring": {"$__rate_interval"},
}
SEVERAL_MINUTES = {"300s", "900s", "3600s"}  # what happens once in minutes is counted over more of them


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_query(target: Any) -> None:
    promql_parser.parse(substituted(target.expr))
    allowed = {v["name"] for v in DASHBOARDS[target.dashboard]["templating"]["list"]} | BUILT_IN
    used = set(re.findall(r"\$\{?([A-Za-z_]\w*)", target.expr))
    assert used <= allowed, f"unknown variables {used - allowed}"
    for selector in selectors(target.expr):
        last_minute = f"vector({WAITING})" in target.expr and selector.window == "60s"  # what became of it
        if selector.function in ("rate", "irate") and not last_minute:
            allowed_here = WINDOWS[target.dashboard] | ({"300s"} if target.panel.endswith(", 5 min") else set())
            assert selector.window in allowed_here, selector
            raw = not selector.metric.startswith(("node_", "exported:node_"))
            assert target.dashboard != "overview" or (selector.window == "300s") == raw, selector
        if selector.function == "increase":
            assert selector.window in ("$__range", *SEVERAL_MINUTES), selector
            assert target.instant or selector.pinned or selector.window != "$__range", "the whole range has one value"
        if ("job", "$instance") in {
            (label, value) for label, _, value in selector.matchers
        } and selector.function == "rate":
            assert recorded_as(selector, target.expr), "the raw series of chosen instances stand in for a record"
        chosen = {(label, value) for label, _, value in selector.matchers}
        for variable in _variables_of(selector.metric, target.dashboard):
            assert variable in chosen, f"{selector.metric} is not narrowed by {variable}"
        if ":" in selector.metric:
            assert selector.metric in RECORDED


def recorded_as(selector: Any, expr: str) -> bool:
    """Whether the query reads a record of this raw series, too, or a record of such a record."""
    sources = {s.metric for s in selectors(expr)}
    while named := {s.metric for name in RECORDED & sources for s in selectors(RECORDS[name])} - sources:
        sources |= named
    return any(selector.metric in {s.metric for s in selectors(RECORDS[name])} for name in RECORDED & sources)


def _variables_of(metric: str, dashboard: str) -> set[tuple[str, str]]:
    """What a metric must be narrowed by, by its origin."""
    if metric == "app_info" and dashboard == "overview":
        return set()  # also to separate other services' alerts
    if metric.startswith(("http_", "websocket_", "llm_", "db_", "active_users", "app_", "telemetry_")):
        narrowed = {("job", "$job"), ("instance", "$instance")}
        if metric.startswith("llm_") and dashboard == "llm":
            narrowed |= {("provider", "$provider"), ("model", "$model")}
        if metric.startswith("db_") and dashboard == "database":
            narrowed |= {("pool", "$pool")}
        by_endpoint = metric.startswith(("http_", "websocket_")) and metric != "http_metrics_overflow_total"
        if by_endpoint and dashboard == "http":
            narrowed |= {("endpoint", "$endpoint")}
        return narrowed
    if metric.startswith("node_"):
        return {("instance", "$node")}
    if metric.startswith("pg_"):
        return {("instance", "$server")}
    if metric.startswith("exported:"):
        return _variables_of(metric.removeprefix("exported:"), dashboard)
    return set()


COUNTERS = re.compile(r"_(total|bucket|sum|count)$")
NO_COUNTERS = {"pg_stat_activity_count", "pg_locks_count"}  # gauges all the same
LIFETIME = {"pg_stat_user_tables_seq_scan", "pg_stat_user_tables_idx_scan"}  # in the table of tables
PRESENCE = {"http_requests_total", "node_cpu_seconds_total"}  # only that they are there


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_counters_are_rated(target: Any) -> None:
    for selector in selectors(target.expr):
        if COUNTERS.search(selector.metric) and selector.metric not in NO_COUNTERS | PRESENCE:
            there = selector.pinned and selector.function in ("", "last_over_time")  # at the start, or ever since
            if target.instant:  # at one moment: what it counted, since when it is there
                there = selector.function in ("", "last_over_time") and selector.metric == "http_exceptions_total"
            assert there or selector.metric in LIFETIME or selector.function in ("rate", "increase"), selector.metric


def test_client_errors_leave_out_clients_that_left() -> None:
    (tile,) = (t for t in TARGETS if (t.dashboard, t.panel) == ("http", "4xx errors"))
    part, *_ = (s.matchers for s in selectors(tile.expr) if ("status_code", "MatchOp.Re", "4..") in s.matchers)
    assert ("status_code", "MatchOp.NotEqual", "499") in part


@pytest.mark.parametrize("name", ["overview", "monitoring"])
def test_alerts_of_one_name_can_be_told_apart(name: str) -> None:
    """Those of burn rates differ in their windows, and two may fire at once."""
    (table,) = (p for p in panels(DASHBOARDS[name]) if p["title"] == "Firing alerts")
    (target,) = table["targets"]
    for alert in {rule.name for rule in alerts()}:
        of_that_name = [rule.labels for rule in alerts() if rule.name == alert]
        for label in {label for labels in of_that_name for label in labels} - {"severity"}:
            if len({labels.get(label) for labels in of_that_name}) > 1:
                assert f'"{label}"' in target["expr"], (alert, label)


def test_a_store_is_behind_as_the_alert_says() -> None:
    (panel,) = (p for p in panels(DASHBOARDS["monitoring"]) if p["title"] == "Behind")
    rules = yaml.safe_load((ROOT / "prometheus" / "rules" / "monitoring.yml").read_text())["groups"]
    (alert,) = (r for group in rules for r in group["rules"] if r.get("alert") == "PrometheusRemoteWriteBehind")
    lag = " ".join(alert["expr"].split()).rpartition(" > ")[0]
    assert panel["targets"][0]["expr"] == f"max by (remote_name) ({lag})"


@by_dashboard
def test_every_variable_is_used(name: str) -> None:
    dashboard = DASHBOARDS[name]
    queries = " ".join(t["expr"] for panel in panels(dashboard) for t in panel["targets"])
    for variable in dashboard["templating"]["list"][1:]:
        assert f"${variable['name']}" in queries, variable["name"]


@by_dashboard
def test_annotations_parse_and_know_their_variables(name: str) -> None:
    dashboard = DASHBOARDS[name]
    known = {v["name"] for v in dashboard["templating"]["list"]}
    own = [a for a in dashboard["annotations"]["list"] if not a.get("builtIn")]
    assert {"Alerts", "Load tests"} <= {a["name"] for a in own}
    for annotation in own:
        promql_parser.parse(substituted(annotation["expr"]))
        assert annotation["target"]["expr"] == annotation["expr"]
        assert set(re.findall(r"\$(\w+)", annotation["expr"])) <= known | BUILT_IN
        # A window of its own would be shorter than the step of a long time range, and miss what lies between.
        windows = re.findall(r"(?:offset |\[)([^:\])\s]+)", annotation["expr"])
        assert set(windows) <= {"$__interval", "$__rate_interval", "3m", "1h"}, annotation["name"]
        assert annotation["name"] in ("Load tests", "Alerts", "Deploys", "Starts", "Reboots")
        assert (set(windows) - {"3m", "1h"}) or annotation["name"] == "Load tests", annotation["name"]


def test_the_step_is_that_of_the_scrapes() -> None:
    """$__rate_interval and the annotations follow from it."""
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == config["global"]["evaluation_interval"] == SCRAPE_INTERVAL
    source = ROOT / "grafana" / "provisioning" / "datasources" / "sightline.yml"
    [prometheus] = (s for s in yaml.safe_load(source.read_text())["datasources"] if s["type"] == "prometheus")
    assert prometheus["jsonData"]["timeInterval"] == SCRAPE_INTERVAL
