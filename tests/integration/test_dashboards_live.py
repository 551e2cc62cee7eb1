"""Every query of every dashboard, asked of the real Prometheus: first of an idle service, then of a busy one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import servers, traffic
from tests.configs.dashboards import Target, selectors, substituted, targets
from tests.servers import Postgres, Prometheus, Running, wait_until

TARGETS = targets()

# Panels that show nothing although all is well, and what fills them. Everything else must have data under traffic.
NEEDS_MORE = {
    "Firing alerts": "an alert fires in the drills; here nothing is wrong",
    "Rate limit left, requests": "only a provider behind the network reports its limits",
    "Rate limit left, tokens": "only a provider behind the network reports its limits",
    "Response time, as sent": "a load test",
    "p95, as sent": "a load test",
    "Requests of the load test": "a load test",
    "Response time spread, as sent": "a load test",
    "Response time p95 by request": "a load test",
    "First token p95, as sent": "a load test with streamed answers",
}
# Series that nothing exposes before something happens, or that another version of the server exposes.
APPEARS_LATER = {
    "http_exceptions_total": "the first exception that nobody catches",
    "llm_rate_limit_remaining": "the first answer of a provider behind the network",
    "llm_unpriced_requests_total": "the first call of a model without a price",
    "ALERTS": "the first alert",
    "ALERTS_FOR_STATE": "the first alert",
    "pg_stat_checkpointer_num_timed_total": "PostgreSQL 17",
    "pg_stat_checkpointer_num_requested_total": "PostgreSQL 17",
    "pg_stat_bgwriter_checkpoints_timed_total": "PostgreSQL 16 and before",
    "pg_stat_bgwriter_checkpoints_req_total": "PostgreSQL 16 and before",
    "prometheus_notifications_sent_total": "an Alertmanager that Prometheus has found",
    "prometheus_notifications_errors_total": "an Alertmanager that Prometheus has found",
    "job_slo:error_budget_left:ratio": "evaluated every two minutes",
}
# At idle a percentile or an average has no truth, not even zero: these panels say so in words.
NO_TRUTH_AT_IDLE = ("histogram_quantile", "_sum{", "_bucket{")


@dataclass(frozen=True)
class Answers:
    prometheus: Prometheus
    idle: dict[Target, int]
    busy: dict[Target, int]


def _ask(prometheus: Prometheus) -> dict[Target, int]:
    """Query -> number of series in its answer; NaN counts as nothing."""
    found = {}
    for target in TARGETS:
        answer = prometheus.query(substituted(target.expr, rate_interval="10s", span="60s"))
        found[target] = sum(value == value for value in answer.values())  # NaN differs from itself
    return found


@pytest.fixture(scope="module")
def answers(postgres: Postgres, postgres_exporter: Running, node_exporter: Running) -> Iterator[Answers]:
    environment = {**postgres.environment(), "APP_WORKERS": "2", "LLM_PROVIDER": "simulated"}
    with (
        servers.app(environment) as app,
        servers.alertmanager(servers_config()) as alertmanager,
        servers.prometheus_of_the_stack(
            app=app, postgres=postgres_exporter, node=node_exporter, alertmanager=alertmanager
        ) as prometheus,
    ):
        wait_until(lambda: set(prometheus.targets().values()) == {"up"})
        # The rules in the slo group come every 15 s, rates need two scrapes.
        wait_until(lambda: prometheus.query("slo:objective:ratio"), timeout=90)
        wait_until(lambda: prometheus.query("rate(node_cpu_seconds_total[10s])"))
        wait_until(lambda: prometheus.query("instance:pg_transactions:rate5m"))
        idle = _ask(prometheus)
        traffic.drive(app.url, seconds=12)
        wait_until(lambda: prometheus.query("rate(llm_time_to_first_token_seconds_count[10s]) > 0"))
        wait_until(lambda: prometheus.query("job_endpoint:http_slow:rate5m"))
        wait_until(lambda: prometheus.query("job_slo:error_budget_burn:rate6h"), timeout=90)  # every 15 s
        busy = _ask(prometheus)
        yield Answers(prometheus, idle, busy)


def servers_config() -> str:
    return "route: {receiver: none}\nreceivers: [{name: none}]\n"


def _panels(answers: dict[Target, int]) -> dict[tuple[str, str], int]:
    """(dashboard, panel) -> series of all its queries."""
    found: dict[tuple[str, str], int] = {}
    for target, series in answers.items():
        key = target.dashboard, target.panel
        found[key] = found.get(key, 0) + series
    return found


def test_every_panel_has_data_under_traffic(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    panels = _panels(answers.busy)
    empty = {key for key, series in panels.items() if not series}
    excused = {key for key in empty if key[1] in NEEDS_MORE}
    with capsys.disabled():
        print(
            f"\n{len(panels)} panels, {len(TARGETS)} queries: {len(panels) - len(empty)} panels have data under traffic"
        )
        for dashboard, panel in sorted(excused):
            print(f"  {dashboard}: {panel!r} needs {NEEDS_MORE[panel]}")
    assert not empty - excused
    stale = {panel for panel in NEEDS_MORE if panel not in {name for _, name in panels}}
    assert not stale, "excused panels that do not exist"


def test_every_query_has_data_under_traffic(answers: Answers) -> None:
    empty = [
        str(target)
        for target, series in answers.busy.items()
        if not series
        and target.panel not in NEEDS_MORE
        and not {s.metric for s in selectors(target.expr)} & APPEARS_LATER.keys()
    ]
    assert not empty, "\n".join(empty)


def test_zero_is_shown_at_idle(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    panels = _panels(answers.idle)
    without_truth = {(t.dashboard, t.panel) for t in TARGETS if any(text in t.expr for text in NO_TRUTH_AT_IDLE)}
    empty = {key for key, series in panels.items() if not series and key[1] not in NEEDS_MORE}
    with capsys.disabled():
        print(
            f"\n{len(panels) - len(empty)} of {len(panels)} panels have data or a zero at idle, the others say why not"
        )
    assert sorted(empty - without_truth) == []


def test_every_metric_of_a_query_is_exposed(answers: Answers) -> None:
    exposed = set(answers.prometheus.api("label/__name__/values"))
    named = {s.metric for t in TARGETS for s in selectors(t.expr) if s.metric}
    missing = {n for n in named - exposed - APPEARS_LATER.keys() if not n.startswith("locust_")}
    assert not missing


def test_every_metric_of_the_service_has_a_panel(answers: Answers) -> None:
    exposed = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for name in answers.prometheus.api("label/__name__/values")
        if name.startswith(("http_", "llm_", "db_", "active_users"))
    }
    shown = {s.metric for t in TARGETS for s in selectors(t.expr)}
    shown = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in shown}
    assert not exposed - shown - {"http_metrics_overflow_total"}
