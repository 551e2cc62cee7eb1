"""Tiles: what they say and in which colour, also without numbers, and that they turn red as the alerts do."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from grafana.src.promql import FAILING, NOTHING, QUIET, WAITING
from tests.grafana.dashboards import DASHBOARDS, by_dashboard, panels, targets
from tests.prometheus.rules import alerts

pytestmark = pytest.mark.check


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
    (tile,) = (t.expr for t in targets() if (t.dashboard, t.panel) == ("overview", "Instances"))
    (alert,) = (rule.expr for rule in alerts() if rule.name == "ServiceDown")
    assert set(re.findall(r"\[(\w+)\]", tile)) == {"30d"}
    assert re.findall(r"\[(\w+)\]", alert)[0] == "30d"  # what follows is about services that left discovery
