"""The dashboards as data: what every panel must have, and what must agree with the rules and with one another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import promql_parser
import pytest
import yaml

from grafana.src import common
from grafana.src.model import SCRAPE_INTERVAL
from grafana.src.promql import FAILING, NOTHING, QUIET, WAITING
from ops import servers as native
from prometheus.src.settings import SETTINGS
from tests import servers
from tests.grafana.dashboards import BUILT_IN, CONSTANTS, DASHBOARDS, ROOT, panels, selectors, substituted, targets
from tests.prometheus.rules import Rule, alerts, document, promtool, recordings
from tests.servers import Prometheus

pytestmark = pytest.mark.check

TARGETS = targets()
RECORDS = {rule.name: rule.expr for rule in recordings()}
RECORDED = RECORDS.keys()
by_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


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
    for panel in panels(DASHBOARDS[name]):
        title = panel["title"]
        assert title
        assert panel["description"].endswith((".", ")", "…")), title
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
    assert len(set(titles)) == len(titles), sorted(t for t in titles if titles.count(t) > 1)


@by_dashboard
def test_overrides_name_no_variable(name: str) -> None:
    """Grafana fills variables into legends, but not into what overrides compare with them."""
    for panel in panels(DASHBOARDS[name]):
        named = [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]]
        assert not [options for options in named if re.search(r"\$\{?\w", options)], panel["title"]


@by_dashboard
def test_stats_have_three_steps_or_one_colour(name: str) -> None:
    two = {"Critical", "Warnings", "OOM kills"}  # one of them is as much as there can be to say
    for panel in panels(DASHBOARDS[name]):
        if panel["type"] == "stat":
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            values = [s["value"] for s in steps]
            assert len(steps) in ((2,) if panel["title"] in two else (1, 3)), panel["title"]
            assert values[0] is None, panel["title"]
            assert all(a < b for a, b in pairwise(values[1:])), panel["title"]


@by_dashboard
def test_stats_show_the_present(name: str) -> None:
    """The number at the end of the time range, and words where it has none: not the last number that there was."""
    for panel in panels(DASHBOARDS[name]):
        if panel["type"] == "stat":
            (target,) = panel["targets"]
            assert target["instant"], panel["title"]
            assert not target["range"], panel["title"]
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["noValue"], panel["title"]
            (null,) = (m["options"]["result"] for m in defaults["mappings"] if m["type"] == "special")
            assert null["color"] == "text", "while Prometheus does not answer, nothing is green"
            assert null["text"] == "no answer", panel["title"]
            # Words for nothing are neither green nor red.
            words = defaults["mappings"][0]["options"]
            quiet = str(QUIET) in words  # what is not there to be measured is not the silence of a dead source
            assert words[str(QUIET) if quiet else str(NOTHING)]["text"] == defaults["noValue"], panel["title"]
            assert not quiet or words[str(NOTHING)]["text"] == "no data", panel["title"]
            for value in (QUIET, NOTHING) if quiet else (NOTHING,):
                word = words[str(value)]
                assert word["color"] == "text", panel["title"]
                named = {"value": "", "name": word["text"], "value_and_name": "-"}[panel["options"]["textMode"]]
                label = target["legendFormat"].strip("{}")
                instead = f'on () label_replace(vector({value}), "{label}", "{named}", "", "")'
                assert f" or {instead if named else f'vector({value})'}" in target["expr"], panel["title"]
            assert f"vector({NOTHING})" in target["expr"].rpartition(" or ")[2], panel["title"]


@by_dashboard
def test_what_fails_or_hangs_is_not_idle(name: str) -> None:
    """Where a tile says "idle", it says "waiting" while nothing ends; a speed says "failing" while all fails."""
    for panel in panels(DASHBOARDS[name]):
        idle = panel["type"] == "stat" and panel["fieldConfig"]["defaults"]["noValue"] in ("idle", "no test")
        if idle and panel["title"] != "Query p90":  # of Prometheus itself
            speed = panel["title"].endswith(" p95") or panel["title"] == "Slow share"
            shown = [m["options"] for m in panel["fieldConfig"]["defaults"]["mappings"] if m["type"] == "value"]
            states = ((WAITING, "waiting", "orange"), *(((FAILING, "failing", "red"),) if speed else ()))
            for value, text, colour in states:
                assert f"vector({value}) and on () (sum(" in panel["targets"][0]["expr"], panel["title"]
                said = [(o[str(value)]["text"], o[str(value)]["color"]) for o in shown]
                assert said == [(text, colour)], panel["title"]


def test_client_errors_leave_out_clients_that_left() -> None:
    (tile,) = (t for t in TARGETS if (t.dashboard, t.panel) == ("http", "4xx errors"))
    part, *_ = (s.matchers for s in selectors(tile.expr) if ("status_code", "MatchOp.Re", "4..") in s.matchers)
    assert ("status_code", "MatchOp.NotEqual", "499") in part


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


@by_dashboard
def test_later_schema_versions_change_nothing(name: str) -> None:
    """Schema 41 is Grafana 12.0's. Version 42 rewrites overrides that hide series, 43 the transformation formatTime."""
    for panel in panels(DASHBOARDS[name]):
        overrides = [p["id"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"]]
        assert "custom.hideFrom" not in overrides, panel["title"]
        assert "formatTime" not in {t["id"] for t in panel.get("transformations", ())}, panel["title"]


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


START = 1_700_000_000  # any time in the past
_RECORD = 'job_endpoint_status:http_requests:rate5m{job="app",'
AN_HOUR = {  # series -> its value, and the second at which it appears with it
    'job:app_info:max{job="app"}': (1, 0),
    'http_exceptions_total{job="app",instance="a",exception="Old"}': (3, 0),
    'http_exceptions_total{job="app",instance="a",exception="New"}': (1, 1800),
    'http_requests_total{job="app",instance="a",endpoint="/old",status_code="404"}': (3, 0),
    'http_requests_total{job="app",instance="a",endpoint="/new",status_code="422"}': (1, 1800),
    'http_requests_total{job="app",instance="a",endpoint="/old",status_code="503"}': (3, 0),
    'http_requests_total{job="app",instance="a",endpoint="/new",status_code="502"}': (1, 1800),
    # Not one of them is counted a second time, so the rates that are recorded of them are 0.
    _RECORD + 'endpoint="/old",status_code="404"}': (0, 0),
    _RECORD + 'endpoint="/new",status_code="422"}': (0, 1800),
    _RECORD + 'endpoint="/old",status_code="503"}': (0, 0),
    _RECORD + 'endpoint="/new",status_code="502"}': (0, 1800),
    # One connection is held, as for LISTEN, and no query comes.
    'db_pool_connections{job="app",instance="a",pool="main",state="used"}': (1, 0),
    'db_pool_connections_max{job="app",instance="a",pool="main"}': (10, 0),
    'db_pool_pending_checkouts{job="app",instance="a",pool="main"}': (0, 0),
    'db_query_duration_seconds_bucket{job="app",instance="a",pool="main",le="+Inf"}': (3, 0),
    # Rules are evaluated from half an hour on, and later one more alert fires.
    'ALERTS{alertname="Watchdog",alertstate="firing",severity="none"}': (1, 1800),
    'ALERTS_FOR_STATE{alertname="Watchdog",severity="none"}': (START + 1800, 1800),
    'ALERTS{alertname="Other",alertstate="firing",severity="warning",pool="main"}': (1, 3000),
    'ALERTS_FOR_STATE{alertname="Other",severity="warning",pool="main"}': (START + 3000, 3000),
}
# Version 1 stops and comes back, 2 replaces it, 3 starts while none is there.
VERSIONS = (("1", 0, 1200), ("1", 1800, 2400), ("2", 2415, 2700), ("3", 3300, 3600))


@pytest.fixture(scope="module")
def an_hour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("hour")
    lines = [
        f"{series} {value} {START + seconds}"
        for series, (value, appears) in AN_HOUR.items()
        for seconds in range(appears, 3601, 15)
    ]
    lines += [
        f'app_info{{job="versions",instance="a",version="{version}"}} 1 {START + seconds}'
        for version, begin, end in VERSIONS
        for seconds in range(begin, end + 1, 15)
    ]
    (folder / "hour.txt").write_text("\n".join([*lines, "# EOF", ""]))
    backfill = promtool("tsdb", "create-blocks-from", "openmetrics", folder / "hour.txt", folder / "data")
    assert backfill.returncode == 0, backfill.stdout + backfill.stderr
    (folder / "prometheus.yml").write_text("")
    make = partial(native.prometheus, folder / "prometheus.yml", folder / "data")
    running = servers.start(make, folder, Prometheus)
    try:
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize(
    ("panel", "label", "new", "nothing"),
    [
        ("Client errors by endpoint", "status_code", {"422"}, "none"),
        ("Server errors by endpoint", "status_code", {"502"}, "none"),
        ("Request rate by status", "class", {"4xx", "5xx"}, "2xx"),
    ],
)
def test_what_appears_with_its_first_event_is_listed(
    an_hour: Prometheus, panel: str, label: str, new: set[str], nothing: str
) -> None:
    """A counter that is born at 1 and stays there never increases; what was there before and stays is not listed."""
    (expr,) = (t.expr for t in TARGETS if (t.dashboard, t.panel) == ("http", panel))

    def listed(start: int, end: int) -> set[str]:
        query = substituted(expr, span=f"{end - start}s")
        answer = an_hour.api("query_range", query=query, start=str(START + start), end=str(START + end), step="60")
        return {series["metric"][label] for series in answer["result"]}

    assert listed(600, 3600) == new
    assert listed(600, 1200) == listed(2400, 3600) == {nothing}


def test_a_version_that_comes_back_is_no_deploy(an_hour: Prometheus) -> None:
    (deploys,) = (a for a in DASHBOARDS["overview"]["annotations"]["list"] if a["name"] == "Deploys")
    times = {"start": str(START + 600), "end": str(START + 3600), "step": "15"}
    answer = an_hour.api("query_range", query=substituted(deploys["expr"]), **times)
    marks = {series["metric"]["version"]: [t - START for t, _ in series["values"]] for series in answer["result"]}
    assert marks == {"2": [2415], "3": [3300]}


def test_exceptions_are_counted_from_their_first_on(an_hour: Prometheus) -> None:
    """One that is born at 1 occurred once; a rate would say 0 a minute."""
    (expr,) = (t.expr for t in TARGETS if (t.dashboard, t.panel) == ("http", "Exceptions"))

    def listed(seconds: int, end: int) -> dict[str, float]:
        answer = an_hour.api("query", query=substituted(expr, span=f"{seconds}s"), time=str(START + end))
        return {series["metric"]["exception"]: float(series["value"][1]) for series in answer["result"]}

    assert listed(3000, 3600) == {"New": 1}
    assert listed(600, 1200) == listed(600, 3600) == {}


def test_a_connection_that_is_held_is_no_wait_for_the_pool(an_hour: Prometheus) -> None:
    """Whether a query hangs on it cannot be known, so the time of queries says so."""

    def answer(panel: str) -> list[float]:
        (expr,) = (t.expr for t in TARGETS if (t.dashboard, t.panel) == ("database", panel))
        found = an_hour.api("query", query=substituted(expr), time=str(START + 3600))["result"]
        return [float(series["value"][1]) for series in found]

    assert answer("Pool in use") == [0.1]
    assert answer("Wait p95") == [QUIET]
    assert answer("Query p95") == [WAITING]


def test_without_a_proxy_nothing_of_it_is_zero(an_hour: Prometheus) -> None:
    shown = [panel for panel in panels(DASHBOARDS["http"]) if "haproxy_" in panel["targets"][0]["expr"]]
    assert len(shown) == 4
    for panel in shown:
        assert panel["fieldConfig"]["defaults"]["noValue"] == "No proxy in this range"
        for target in panel["targets"]:
            query = substituted(target["expr"])
            assert an_hour.api("query", query=query, time=str(START + 3600))["result"] == [], panel["title"]


def test_that_nothing_fires_is_known_from_the_alert_that_always_does(an_hour: Prometheus) -> None:
    def answer(dashboard: str, panel: str, second: int) -> list[tuple[dict[str, str], float]]:
        (expr,) = (t.expr for t in TARGETS if (t.dashboard, t.panel) == (dashboard, panel))
        found = an_hour.api("query", query=substituted(expr), time=str(START + second))["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    without_rules, quiet, firing = 1200, 2400, 3600
    for dashboard in ("overview", "monitoring"):
        rows = {
            second: [
                (labels["alertname"], labels["where"].strip(), value)
                for labels, value in answer(dashboard, "Firing alerts", second)
            ]
            for second in (without_rules, quiet, firing)
        }
        assert rows == {
            without_rules: [],
            quiet: [("Watchdog", "nothing else fires", 600)],
            firing: [("Other", "main", 600)],
        }
    assert answer("overview", "Alerts", without_rules) == [({"said": "no rules"}, NOTHING)]
    assert answer("overview", "Alerts", quiet) == [({"said": "none"}, 0)]
    assert [(said["said"], value) for said, value in answer("overview", "Alerts", firing)] == [("1 warn", 1)]
    for title, warnings in (("Critical", 0), ("Warnings", 1)):
        assert answer("monitoring", title, without_rules) == [({}, NOTHING)]
        assert answer("monitoring", title, quiet) == [({}, 0)]
        assert answer("monitoring", title, firing) == [({}, warnings)]


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


def _urls(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["url"]] if isinstance(value.get("url"), str) else []
        return own + [url for child in value.values() for url in _urls(child)]
    return [url for child in value for url in _urls(child)] if isinstance(value, list) else []


VARIABLES = {d["uid"]: {v["name"] for v in d["templating"]["list"]} for d in DASHBOARDS.values()}


@by_dashboard
def test_links_lead_somewhere(name: str) -> None:
    for url in _urls(DASHBOARDS[name]):
        if match := re.match(r"/d/([\w-]+)", url):
            assert match[1] in VARIABLES, url
            assert set(re.findall(r"var-(\w+)=", url)) <= VARIABLES[match[1]], url
        else:
            assert url.startswith("/api/datasources/proxy/uid/${datasource}/user/runbooks/") or not url, url


@by_dashboard
def test_links_name_no_variable_twice(name: str) -> None:
    """Where All comes first, Grafana takes All: the choice of the link would be lost."""
    own = VARIABLES[f"sightline-{name}"]
    for url in _urls(DASHBOARDS[name]):
        chosen = re.findall(r"var-(\w+)=", url)
        kept = list(own) if "${__all_variables}" in url else re.findall(r"\$\{(\w+):queryparam\}", url)
        assert len({*chosen, *kept}) == len([*chosen, *kept]), url
        for value in re.findall(r"var-\w+=(\$\{[^}]+\})", url):
            assert value.endswith(":percentencode}"), url
        if chosen and f"/d/sightline-{name}?" in url:
            asked = {v["name"] for v in DASHBOARDS[name]["templating"]["list"] if v["type"] != "constant"}
            assert {*chosen, *kept} == asked, "all other choices are kept"


@by_dashboard
def test_lines_without_the_label_that_a_click_needs_lead_nowhere(name: str) -> None:
    """An objective is no endpoint, and neither is "none": the dashboard for it alone would be empty."""
    for panel in panels(DASHBOARDS[name]):
        links = panel["fieldConfig"]["defaults"].get("links", [])
        if panel["type"] != "timeseries" or not any("__field.labels." in link["url"] for link in links):
            continue
        dead = [
            override["matcher"]
            for override in panel["fieldConfig"]["overrides"]
            if {"id": "links", "value": []} in override["properties"]
        ]
        named = {t["legendFormat"] for t in panel["targets"] if "{{" not in t["legendFormat"]}
        assert named <= {m["options"] for m in dead if m["id"] == "byName"}, panel["title"]
        for target in panel["targets"]:
            for label, line in re.findall(r'vector\(0\).*?, "(\w+)", "([^"]+)", "", ""\)', target["expr"]):
                legend = re.sub(r"{{(\w+)}}", lambda m: line if m[1] == label else "", target["legendFormat"])  # noqa: B023
                regexes = [m["options"] for m in dead if m["id"] == "byRegexp"]
                assert any(re.search(regex, legend) for regex in regexes), f"{panel['title']}: {legend}"


DRILLS = {  # from the first to the others: from general to specific, and to the alerts' own dashboard
    "overview": {"http", "llm", "database", "host", "monitoring"},
    "loadtest": {"http", "llm", "database", "host"},
}


@pytest.mark.parametrize("name", DRILLS)
def test_panels_lead_deeper_with_the_choice_and_the_time(name: str) -> None:
    reached = set()
    for panel in panels(DASHBOARDS[name]):
        links = panel["fieldConfig"]["defaults"].get("links", [])
        if name == "overview":
            assert links or panel["title"] == "Firing alerts", f"{panel['title']} leads nowhere"
        for link in links:
            target = re.match(r"/d/sightline-(\w+)\?", link["url"])
            assert target, link
            assert "${__url_time_range}" in link["url"], link
            assert "${__all_variables}" in link["url"] or target[1] == "monitoring", link
            reached.add(target[1])
    assert reached == DRILLS[name]


@by_dashboard
def test_dashboards_lead_to_all_others_with_the_time(name: str) -> None:
    """By their tags, so that a dashboard that was copied alone has no link into nowhere."""
    found: set[str] = set()
    for link in DASHBOARDS[name]["links"]:
        assert link["type"] == "dashboards"
        assert link["keepTime"]
        targets = {other for other, d in DASHBOARDS.items() if set(link["tags"]) <= set(d["tags"])}
        assert link["includeVars"] == (name != "monitoring")  # whose job may be an exporter's
        assert not found & targets
        found |= targets
    assert found | {name} == DASHBOARDS.keys()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule.name))
def test_alerts_link_to_dashboards_and_variables_that_exist(rule: Rule) -> None:
    match = re.search(r"/d/([\w-]+)(.*)", rule.annotations["dashboard_url"])
    assert match
    assert match[1] in VARIABLES
    assert set(re.findall(r"var-(\w+)=", match[2])) <= VARIABLES[match[1]]


def test_alerts_links_arrive_with_their_variables_filled() -> None:
    """As promtool's unit tests of the rules have them, after Prometheus has filled them in."""
    filled: dict[str, set[str]] = {}
    for file in (ROOT / "prometheus" / "tests").glob("*.yml"):
        for case in document(file)["tests"]:
            for check in case.get("alert_rule_test", ()):
                for alert in check.get("exp_alerts", ()):
                    url = alert.get("exp_annotations", {}).get("dashboard_url", "")
                    filled.setdefault(check["alertname"], set()).add(url)
    assert filled.keys() >= {rule.name for rule in alerts()}
    for name, urls in filled.items():
        for url in urls:
            assert re.fullmatch(r"http://[^/]+/d/[\w-]+(\?var-\w+=[^&=]+(&var-\w+=[^&=]+)*)?", url), f"{name}: {url}"


def test_hidden_variables_are_the_endpoints_of_the_objectives() -> None:
    assert {common.IGNORED.name: SETTINGS.ignored, common.STREAMING.name: SETTINGS.streaming} == CONSTANTS
    assert SETTINGS.objectives.keys() == common.SLO_COLOURS.keys()


# Where a tile turns red, its alert fires (if it goes on).
RED = {
    ("overview", "Instances"): None,
    ("overview", "Alerts"): None,
    ("overview", "Targets up"): None,
    ("overview", "Worst 5xx"): "HttpEndpointFailing",
    ("overview", "SLO 5xx"): None,
    ("overview", "SLO slow"): None,
    ("overview", "Postgres"): None,
    ("overview", "Error rate"): None,
    ("overview", "HTTP p95"): None,
    ("overview", "LLM errors"): "LlmErrors",
    ("overview", "Model p95"): "LlmSlow",
    ("overview", "SQL errors"): None,
    ("overview", "Query p95"): "DbQueriesSlow",
    ("overview", "Pool in use"): "DbPoolNearlyExhausted",
    ("overview", "CPU"): "HostCpuBusy",
    ("overview", "Memory"): "HostMemoryLow",
    ("overview", "Disk"): "HostDiskAlmostFull",
    ("http", "5xx errors"): None,
    ("http", "Worst 5xx"): "HttpEndpointFailing",
    ("http", "4xx errors"): None,
    ("http", "Slow share"): None,
    ("http", "HTTP p95"): None,
    ("llm", "LLM errors"): "LlmErrors",
    ("llm", "Model p95"): "LlmSlow",
    ("llm", "TTFT p95"): "LlmFirstTokenSlow",
    ("llm", "TPOT p95"): None,
    ("llm", "No usage"): None,
    ("llm", "Unpriced"): None,
    ("database", "Postgres"): None,
    ("database", "SQL errors"): None,
    ("database", "Query p95"): "DbQueriesSlow",
    ("database", "Pool in use"): "DbPoolNearlyExhausted",
    ("database", "Wait p95"): "DbPoolWaitSlow",
    ("database", "Backends"): "PostgresConnectionsExhausted",
    ("database", "Cache hits"): "PostgresCacheHitsLow",
    ("database", "Longest tx"): "PostgresLongTransaction",
    ("database", "Blocked"): None,
    ("database", "Deadlocks"): "PostgresDeadlocks",
    ("host", "Hosts up"): None,
    ("host", "CPU"): "HostCpuBusy",
    ("host", "Load/core"): "HostLoadHigh",
    ("host", "CPU PSI"): None,
    ("host", "Memory"): "HostMemoryLow",
    ("host", "Swap used"): None,
    ("host", "OOM kills"): None,
    ("host", "Disk"): "HostDiskAlmostFull",
    ("host", "Disk util."): None,
    ("host", "Net util."): None,
    ("host", "Net errors"): None,
    ("host", "TCP resent"): None,
    ("loadtest", "Failed"): None,
    ("loadtest", "Client p95"): None,
    ("loadtest", "Server p95"): None,
    ("monitoring", "Targets up"): None,  # red is a job without any target; TargetDown fires for a single one, too
    ("monitoring", "Watchdog"): None,  # there is none that could arrive
    ("monitoring", "Critical"): None,
    ("monitoring", "Rule errors"): None,
    ("monitoring", "Unsent"): None,
    ("monitoring", "Config"): None,
    ("monitoring", "Scrape"): "ScrapeSlow",
    ("monitoring", "Rules max"): None,
    ("monitoring", "Query p90"): None,
    ("monitoring", "Series"): None,
}


def test_tiles_turn_red_where_alerts_fire() -> None:
    red = {}
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
            if panel["type"] == "stat" and "red" in [s["color"] for s in steps]:
                first, second, *_ = steps
                at = (
                    second["value"]
                    if first["color"] == "red"
                    else next(s for s in steps if s["color"] == "red")["value"]
                )
                red[name, panel["title"]] = at
    assert red.keys() == RED.keys(), "say which alert it is, or None"
    for tile, alert in RED.items():
        if alert:
            (expr,) = (rule.expr for rule in alerts() if rule.name == alert)
            limit = float(re.search(r"[<>=]=? ([\d.]+)$", expr, re.MULTILINE)[1])  # type: ignore[index]
            if re.search(r"avail(able)?:ratio <", expr):
                limit = 1 - limit  # what is left and not what is used
            assert red[tile] == pytest.approx(limit), f"{tile}: {alert}: {expr}"


def test_an_outage_is_red_for_as_long_as_its_alert_fires() -> None:
    (tile,) = (t.expr for t in TARGETS if (t.dashboard, t.panel) == ("overview", "Instances"))
    (alert,) = (rule.expr for rule in alerts() if rule.name == "ServiceDown")
    assert set(re.findall(r"\[(\w+)\]", tile)) == {"30d"}
    assert re.findall(r"\[(\w+)\]", alert)[0] == "30d"  # what follows is about services that left discovery


def test_the_step_is_that_of_the_scrapes() -> None:
    """$__rate_interval and the annotations follow from it."""
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == config["global"]["evaluation_interval"] == SCRAPE_INTERVAL
    source = ROOT / "grafana" / "provisioning" / "datasources" / "sightline.yml"
    [prometheus] = (s for s in yaml.safe_load(source.read_text())["datasources"] if s["type"] == "prometheus")
    assert prometheus["jsonData"]["timeInterval"] == SCRAPE_INTERVAL


def test_the_fourteen_are_on_the_overview() -> None:
    names = {s.metric for t in TARGETS if t.dashboard == "overview" for s in selectors(t.expr)}
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


def test_a_store_is_behind_as_the_alert_says() -> None:
    (panel,) = (p for p in panels(DASHBOARDS["monitoring"]) if p["title"] == "Behind")
    rules = yaml.safe_load((ROOT / "prometheus" / "rules" / "monitoring.yml").read_text())["groups"]
    (alert,) = (r for group in rules for r in group["rules"] if r.get("alert") == "PrometheusRemoteWriteBehind")
    lag = " ".join(alert["expr"].split()).rpartition(" > ")[0]
    assert panel["targets"][0]["expr"] == f"max by (remote_name) ({lag})"
