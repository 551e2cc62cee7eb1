"""Links: between dashboards, from panels and from alerts, with the choice and the time."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.grafana.dashboards import DASHBOARDS, ROOT, by_dashboard, panels
from tests.prometheus.rules import Rule, alerts, document

pytestmark = pytest.mark.check

VARIABLES = {d["uid"]: {v["name"] for v in d["templating"]["list"]} for d in DASHBOARDS.values()}


def _urls(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["url"]] if isinstance(value.get("url"), str) else []
        return own + [url for child in value.values() for url in _urls(child)]
    return [url for child in value for url in _urls(child)] if isinstance(value, list) else []


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
    assert {rule.name for rule in alerts()} - filled.keys() == set(), "alerts that no unit test sees firing"
    for name, urls in filled.items():
        for url in urls:
            assert re.fullmatch(r"http://[^/]+/d/[\w-]+(\?var-\w+=[^&=]+(&var-\w+=[^&=]+)*)?", url), f"{name}: {url}"
