"""Every query of every dashboard, asked of the real Prometheus: first of an idle service, then of a busy one."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grafana.src.panels import NO_WORDS
from ops import remote_write, settings
from tests import servers, traffic
from tests.grafana import longterm
from tests.grafana.dashboards import DASHBOARDS, ROOT, Target, is_number, panels, selectors, substituted, targets
from tests.grafana.live import APPEARS_LATER, LATER, NEEDS_MORE, answer
from tests.running import Running, free_port, wait_until
from tests.servers import Postgres, Prometheus, VictoriaMetrics

TARGETS = targets()

# Panels that have nothing to say at idle, not even zero, though they show no percentile and no average.
NOTHING_YET = {
    "Rate limit remaining": "the first answer of a provider that reports its limits",
    **dict.fromkeys(("Cost/call", "LLM errors", "No usage", "Unpriced"), "the first call"),
    **dict.fromkeys(("Error rate", "5xx errors", "4xx errors", "Worst 5xx", "Slow share"), "the first request"),
    "Failed": "the first request of a load test",
    "Cost per call by model": "the first call",
}
# Queries name both: one of them is exposed, the other one by another version.
ALTERNATIVES: tuple[tuple[set[str], set[str]], ...] = (
    (
        {"pg_stat_bgwriter_checkpoints_timed_total", "pg_stat_bgwriter_checkpoints_req_total"},  # PostgreSQL 16
        {"pg_stat_checkpointer_num_timed_total", "pg_stat_checkpointer_num_requested_total"},
    ),
    (
        {"pg_stat_user_tables_size_bytes"},  # postgres_exporter 0.18
        {"pg_stat_user_tables_table_size_bytes", "pg_stat_user_tables_index_size_bytes"},
    ),
)
# What the service exposes and no dashboard shows.
WITHOUT_A_PANEL = {
    "process_virtual_memory_bytes": "address space, which costs nothing; resident memory is shown",
    "python_info": "a fact, not a measurement",
}
# At idle a percentile or an average has no truth, not even zero: these panels say so in words.
NO_TRUTH_AT_IDLE = ("histogram_quantile", "_sum{", "_bucket{")


@dataclass(frozen=True)
class Answers:
    app: Running
    store: VictoriaMetrics
    prometheus: Prometheus
    idle: dict[Target, int]
    busy: dict[Target, int]


def _ask(prometheus: Prometheus, missing: Callable[[dict[Target, int]], object]) -> dict[Target, int]:
    """Query -> number of series in its answer; what a tile shows as words for nothing is none.

    A scrape that takes longer than its second, as on a busy machine, leaves all that it brings without an answer until
    the next one: while something is `missing`, the queries without an answer are asked again.
    """
    found = dict.fromkeys(TARGETS, 0)

    def complete() -> bool:
        for target in [target for target, series in found.items() if not series]:
            found[target] = sum(map(is_number, answer(prometheus, target).values()))
        return not missing(found)

    with suppress(AssertionError):  # the tests say what is missing
        wait_until(complete, timeout=60, interval=1)
    return found


def silent_queries(busy: dict[Target, int]) -> list[str]:
    """The queries that have no data under traffic, and no reason."""
    return [
        str(target)
        for target, series in busy.items()
        if not series
        and target.panel not in NEEDS_MORE
        and not any(part in target.expr for part in LATER)
        and not {s.metric for s in selectors(target.expr)} & APPEARS_LATER.keys()
    ]


def empty_panels(busy: dict[Target, int]) -> set[tuple[str, str]]:
    """The same of panels: (dashboard, panel)."""
    return {key for key, series in _panels(busy).items() if not series and key[1] not in NEEDS_MORE}


def panels_without_zero(idle: dict[Target, int]) -> set[tuple[str, str]]:
    """The panels that show no number at idle, not even zero, and have a truth to show."""
    without_truth = {(t.dashboard, t.panel) for t in TARGETS if any(text in t.expr for text in NO_TRUTH_AT_IDLE)}
    empty = {key for key, series in _panels(idle).items() if not series}
    return {(d, p) for d, p in empty - without_truth if p not in NEEDS_MORE | NOTHING_YET}


@pytest.fixture(scope="module")
def answers(postgres: Postgres, postgres_exporter: Running, node_exporter: Running) -> Iterator[Answers]:
    environment = {**postgres.environment(), "APP_WORKERS": "2", "LLM_PROVIDER": "simulated"}
    locust = free_port()
    with (
        servers.app(environment) as app,
        servers.proxy(app) as (proxy, public),
        servers.alertmanager("route: {receiver: none}\nreceivers: [{name: none}]\n") as alertmanager,
        servers.victoriametrics() as store,
        servers.prometheus_of_the_stack(
            also=remote_write.section(settings.load({"LONGTERM_RETENTION": "1y"}, Path("no .env")), store.url),
            app=app,
            proxy=proxy,
            postgres=postgres_exporter,
            node=node_exporter,
            alertmanager=alertmanager,
            locust=locust,
        ) as prometheus,
    ):
        wait_until(lambda: list(prometheus.targets().values()).count("up") == 6)
        # The rules in the slo group come every 15 s, rates need two scrapes.
        wait_until(lambda: prometheus.query("sightline:slo_objective:ratio"))
        wait_until(lambda: prometheus.query("job_slo:error_budget_remaining:ratio"))  # every 30 s
        wait_until(lambda: prometheus.query("rate(node_cpu_seconds_total[10s])"))
        wait_until(lambda: prometheus.query("rate(llm_tokens_total[10s])"))
        wait_until(lambda: prometheus.query("job_pool:db_pool_checkout_timeouts:rate5m"))
        wait_until(lambda: prometheus.query("rate(instance:pg_stat_database_xact_commit:exported_total[10s])"))
        wait_until(lambda: prometheus.query("instance:pg_transactions:rate5m"))
        for _ in range(2):  # what is recorded of what was scraped last, and a rate of that
            _wait_for_rules(prometheus)
        idle = _ask(prometheus, panels_without_zero)
        with _load_test(app.url, locust):
            yield Answers(app, store, prometheus, idle, _busy(prometheus, public))


def _wait_for_rules(prometheus: Prometheus) -> None:
    """Until all rules but those with an interval of their own have been evaluated from now on."""
    since = datetime.now(UTC)

    def evaluated() -> bool:
        groups = [group for group in prometheus.api("rules")["groups"] if group["interval"] <= 1]
        return bool(groups) and all(datetime.fromisoformat(group["lastEvaluation"]) > since for group in groups)

    wait_until(evaluated)


def _busy(prometheus: Prometheus, url: str) -> dict[Target, int]:
    traffic.drive(url, seconds=12)
    wait_until(lambda: prometheus.query("rate(llm_time_to_first_token_seconds_count[10s]) > 0"))
    wait_until(lambda: prometheus.query("rate(locust_time_to_first_token_seconds_count[10s]) > 0"))
    wait_until(lambda: prometheus.query("rate(locust_streams_abandoned_total[10s]) > 0"))
    quick = 'locust_response_time_seconds_count{name!~".*chat.*", outcome="success"}'  # the fewest of the requests
    wait_until(lambda: prometheus.query(f"rate({quick}[10s]) > 0"))
    wait_until(lambda: prometheus.query("job_endpoint:http_slow:rate5m"))
    wait_until(lambda: prometheus.query("job_slo:error_budget_burn:rate6h"))  # every 15 s
    return _ask(prometheus, lambda found: silent_queries(found) or empty_panels(found))


@contextmanager
def _load_test(url: str, metrics_port: int) -> Iterator[None]:
    """Some simulated users, of whom many abandon their streams, for as long as this lasts."""
    settings = {"HOST": url, "USERS": "3", "DURATION": "10m", "THINK": "0-0.2", "WEIGHTS": "stream=5,abandon=10"}
    locust = subprocess.Popen(
        [sys.executable, "-m", "loadtest"],
        env={**os.environ, **settings, "LOCUST_METRICS_PORT": str(metrics_port)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        locust.kill()  # the report of an interrupted run is not needed
        locust.wait()


def _panels(answers: dict[Target, int]) -> dict[tuple[str, str], int]:
    """(dashboard, panel) -> series of all its queries."""
    found: dict[tuple[str, str], int] = {}
    for target, series in answers.items():
        key = target.dashboard, target.panel
        found[key] = found.get(key, 0) + series
    return found


def test_every_panel_has_data_under_traffic(answers: Answers, summarize: Callable[[str, str], None]) -> None:
    shown = _panels(answers.busy)
    empty = {key for key, series in shown.items() if not series}
    summarize(
        "dashboards", f"{len(shown)} panels, {len(TARGETS)} queries: {len(shown) - len(empty)} have data under load"
    )
    for dashboard, panel in sorted(empty - empty_panels(answers.busy)):
        summarize("dashboards", f"  {dashboard}: {panel!r} needs {NEEDS_MORE[panel]}")
    assert not empty_panels(answers.busy)
    assert NEEDS_MORE.keys() | NOTHING_YET.keys() <= {panel for _, panel in shown}, "excused panels that do not exist"


def test_every_query_has_data_under_traffic(answers: Answers) -> None:
    silent = silent_queries(answers.busy)
    assert not silent, "\n".join(silent)


def test_zero_is_shown_at_idle(answers: Answers, summarize: Callable[[str, str], None]) -> None:
    shown = _panels(answers.idle)
    empty = {key for key, series in shown.items() if not series}
    numbers = len(shown) - len(empty)
    summarize("dashboards", f"at idle {numbers} show a number, zero included; {len(empty)} say that there is nothing")
    assert not panels_without_zero(answers.idle)
    silent = {
        (name, panel["title"])
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        if (name, panel["title"]) in empty
        and panel["fieldConfig"]["defaults"].get("noValue", NO_WORDS) in ("", "-", "0", NO_WORDS)
    }
    assert not silent, "they are empty at idle and do not say why"


def test_the_store_for_years_answers_every_query(answers: Answers, summarize: Callable[[str, str], None]) -> None:
    """With which numbers, docs/remote-write.md says; here only that it takes each query and has the recorded series."""
    sent = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
    end = float(int(time.time()))
    wait_until(lambda: answers.prometheus.value(sent) > end)
    answers.store.visible()
    found = list(longterm.compare(answers.prometheus, answers.store, end - 30, end, 1))
    for line in longterm.table(found):
        summarize("the dashboards' queries of VictoriaMetrics, scrapes every second", line)
    assert [f"{answer.target}: {answer.error}" for answer in found if answer.error] == []
    recorded = [answer for answer in found if "recorded" in answer.kind]
    assert recorded
    assert [str(answer.target) for answer in recorded if 0.01 < answer.difference < math.inf] == []


def test_firing_alerts_are_listed(answers: Answers) -> None:
    severity = 'severity=~"critical|warning"'
    for expr in {substituted(t.expr) for t in TARGETS if t.panel == "Firing alerts"}:
        assert severity in expr
        rows = answers.prometheus.query(expr.replace(severity, 'severity="none"'))
        assert ("Watchdog", "") in {(row["alertname"], row["where"].strip()) for row in map(dict, rows)}


def test_every_metric_of_a_query_is_exposed(answers: Answers) -> None:
    exposed = set(answers.prometheus.api("label/__name__/values"))
    named = {s.metric for t in TARGETS for s in selectors(t.expr) if s.metric}
    of_versions = set().union(*(old | new for old, new in ALTERNATIVES))
    assert not sorted(named - exposed - APPEARS_LATER.keys() - of_versions)
    assert [pair for pair in ALTERNATIVES if not any(names <= exposed for names in pair)] == []


def test_every_metric_of_the_service_and_of_load_tests_has_a_panel(answers: Answers) -> None:
    """Also of those that have no series yet: the service declares them all."""
    declared = {
        _family(entry["metric"])
        for job in ("app", "locust")
        for entry in answers.prometheus.api("targets/metadata", match_target=f'{{job="{job}"}}')
    }
    assert {"http_exceptions", "llm_unpriced_requests", "locust_streams_abandoned"} <= declared
    shown = {_family(s.metric) for t in TARGETS for s in selectors(t.expr)}
    assert declared - shown == WITHOUT_A_PANEL.keys()


def _family(metric: str) -> str:
    """The name without what its series add: OpenMetrics declares families, the older text format counters."""
    return re.sub(r"_(bucket|sum|count|total)$", "", metric)


COUNTED_BY_THE_SERVICE = re.compile(r"(job\w*:)?(http_|llm_|db_|active_users|app_info)")


def test_nothing_of_a_dead_service_is_zero(answers: Answers) -> None:
    """The last test here, for it stops the service: a tile without its source has no number, and one says why."""
    answers.app.stop()
    wait_until(lambda: answers.prometheus.query('up{job="app"} == 0'))
    wait_until(lambda: not answers.prometheus.query('rate(process_cpu_seconds_total{job="app"}[3s])'))
    # What is recorded of a series ends with the next evaluation, not with the scrape that fails.
    wait_until(lambda: not answers.prometheus.query('job:app_info:max{job="app"}'))
    shown = []
    for target in TARGETS:
        if target.kind == "stat":
            found = answers.prometheus.query(substituted(target.expr, rate_interval="3s", span="3s"))
            numbers = list(filter(is_number, found.values()))
            if (target.dashboard, target.panel) == ("overview", "Instances"):
                assert numbers == [0]
                assert [dict(labels) for labels in found] == [{"up": "0", "known": "1", "state": "0/1"}]
            counted = {s.metric for s in selectors(target.expr)}
            if numbers and all(COUNTED_BY_THE_SERVICE.match(metric) for metric in counted):
                shown.append(str(target))
    assert not shown, "\n".join(shown)
