"""What the queries answer on an hour of made-up series."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from grafana.src.promql import NOTHING, QUIET, WAITING
from ops import servers as native
from tests.grafana.dashboards import DASHBOARDS, panels, substituted, targets
from tests.prometheus.rules import promtool
from tests.running import start
from tests.servers import Prometheus

pytestmark = pytest.mark.check

TARGETS = targets()
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
    running = start(make, folder, Prometheus)
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
    replicas, *shown = [panel for panel in panels(DASHBOARDS["http"]) if "haproxy_" in panel["targets"][0]["expr"]]
    assert len(shown) == 3
    for panel in shown:
        assert panel["fieldConfig"]["defaults"]["noValue"] == "No proxy in this range"
        for target in panel["targets"]:
            query = substituted(target["expr"])
            assert an_hour.api("query", query=query, time=str(START + 3600))["result"] == [], panel["title"]
    (band,) = an_hour.api(
        "query", query=substituted(replicas["targets"][0]["expr"], span="3000s"), time=str(START + 3600)
    )["result"]
    value = band["value"][1]
    mappings = replicas["fieldConfig"]["defaults"]["mappings"]
    assert (band["metric"]["server"], mappings[0]["options"][value]["text"]) == ("proxy", "none in this range")


def test_the_watchdog_shows_that_no_other_alert_fires(an_hour: Prometheus) -> None:
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
    assert answer("overview", "Alerts", without_rules) == [({"state": "no rules"}, NOTHING)]
    assert answer("overview", "Alerts", quiet) == [({"state": "none"}, 0)]
    assert [(said["state"], value) for said, value in answer("overview", "Alerts", firing)] == [("1 warn", 1)]
    for title, warnings in (("Critical", 0), ("Warnings", 1)):
        assert answer("monitoring", title, without_rules) == [({}, NOTHING)]
        assert answer("monitoring", title, quiet) == [({}, 0)]
        assert answer("monitoring", title, firing) == [({}, warnings)]
