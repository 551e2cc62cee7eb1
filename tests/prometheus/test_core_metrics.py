"""The fourteen core metrics, queried from a real Prometheus while the real service is in use.

Everything is the stack's own: servers, roles, rules, scrape jobs; only the scrape interval is shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import servers, traffic
from tests.core_metrics import QUERIES, Query
from tests.running import Running, wait_until
from tests.servers import Postgres, Prometheus

WORKERS = 2


@dataclass(frozen=True)
class Watched:
    """The service with everything that watches it, after its users have left."""

    app: Running
    prometheus: Prometheus
    record: traffic.Record


@pytest.fixture(scope="module")
def watched(postgres: Postgres, postgres_exporter: Running, node_exporter: Running) -> Iterator[Watched]:
    environment = {
        **postgres.environment(),  # the database that the exporter looks at
        "APP_WORKERS": str(WORKERS),
        "LLM_PROVIDER": "simulated",
    }
    with (
        servers.app(environment) as app,
        servers.prometheus_of_the_stack(app=app, postgres=postgres_exporter, node=node_exporter) as prometheus,
    ):
        wait_until(lambda: prometheus.targets() == dict.fromkeys(("app", "postgres", "node", "prometheus"), "up"))
        assert prometheus.value(f"{_OWN_REQUESTS} or vector(0)") == 0, "the service has answered another client"
        record = traffic.drive(app.url, seconds=15)
        total = sum(record.requests.values())
        wait_until(lambda: prometheus.value(_OWN_REQUESTS) == total)
        yield Watched(app, prometheus, record)


# Prometheus' own visits and those of the fixture are no part of the record.
_OWN_REQUESTS = 'sum(http_requests_total{endpoint!~"/metrics|/readyz"})'


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.row}: {query.what}")
def test_fourteen(watched: Watched, query: Query) -> None:
    def plausible() -> bool:
        value = watched.prometheus.value(query.expression)
        assert query.plausible(value), f"{query.row} ({query.what}) is {value}"
        return True

    wait_until(plausible)  # what a scrape brings is not there where the last one took longer than its second


def test_every_request_is_counted_once_under_its_route(watched: Watched) -> None:
    requests = _OWN_REQUESTS.removeprefix("sum(").removesuffix(")")
    names = {"/chat": servers.streaming_endpoint()}  # under which Prometheus has it
    seen = {
        (("endpoint", names.get(route, route)), ("method", method), ("status_code", str(status))): float(count)
        for (method, route, status), count in watched.record.requests.items()
    }

    def the_same() -> bool:
        assert watched.prometheus.query(f"sum by (method, endpoint, status_code) ({requests}) > 0") == seen
        return True

    wait_until(the_same)


def test_nothing_is_in_progress_without_clients(watched: Watched) -> None:
    wait_until(lambda: watched.prometheus.value('sum(http_requests_in_progress{endpoint!="/metrics"})') == 0)


def test_tokens_and_prompts_match_the_answers(watched: Watched) -> None:
    prometheus, record = watched.prometheus, watched.record
    for expression, told in (
        ('sum(llm_tokens_total{type="input"})', record.tokens["input"]),
        ('sum(llm_tokens_total{type="output"})', record.tokens["output"]),
        ('sum(llm_request_duration_seconds_bucket{outcome="success", le="+Inf"})', record.chats),
        ("sum(llm_prompt_length_characters_sum)", record.prompt_characters),
        ("max(max_over_time(llm_prompt_length_characters_max[5m]))", record.longest_prompt),
    ):
        assert wait_until(lambda: prometheus.value(expression)) == told, expression  # noqa: B023  is called at once


def test_users_are_counted_once_over_all_workers(watched: Watched) -> None:
    users = wait_until(lambda: watched.prometheus.value('max(active_users{window="5m"})'))
    assert round(users) == watched.record.users


def test_service_and_database_agree_on_commits(watched: Watched) -> None:
    """The service's own count is a lower bound of PostgreSQL's, which also sees the exporter and the migrations."""
    own = wait_until(lambda: watched.prometheus.value('sum(db_transactions_total{outcome="commit"})'))
    wait_until(lambda: own <= watched.prometheus.value('pg_stat_database_xact_commit{datname="sightline"}'))


def test_no_alert_fires_on_a_healthy_service(watched: Watched) -> None:
    firing = watched.prometheus.query(
        'count by (alertname) (ALERTS{alertstate="firing", severity=~"warning|critical"})'
    )
    assert firing == {}
