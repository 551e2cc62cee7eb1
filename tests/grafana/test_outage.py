"""What the tiles say in a real outage: the provider of the language model fails, then PostgreSQL is stopped.

Real servers of the stack's own; scrapes and rules come every 3 seconds instead of every 15, windows stay as they are.
The tests follow the outage in their order.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import pytest

from tests import servers
from tests.grafana.tiles import Tile, tile
from tests.servers import Postgres, Prometheus, wait_until
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import FakeProvider, Reply, openai_whole

CHAT = {"message": "How are you?", "stream": False}


@dataclass
class Stack:
    """The servers, and users who go on whatever happens."""

    url: str
    postgres: Postgres
    provider: FakeProvider
    prometheus: Prometheus
    key: str

    def tile(self, dashboard: str, title: str) -> Tile:
        return tile(self.prometheus, dashboard, title)

    @contextmanager
    def users(self) -> Iterator[None]:
        """Requests one after the other until the end of the context, however they are answered."""

        def work(over: threading.Event) -> None:
            headers = {"Authorization": f"Bearer {self.key}"}
            with httpx.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False) as client:
                while not over.wait(0.2):
                    for request in (
                        ("GET", "/items?limit=5", None),
                        ("GET", "/users/me", None),
                        ("POST", "/chat", CHAT),
                    ):
                        with suppress(httpx.HTTPError):  # not answered in time is an outage, too
                            method, path, body = request
                            client.request(method, path, json=body)

        with servers.meanwhile(work):
            yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    key = tmp_path_factory.mktemp("llm") / "key"
    key.write_text("none")
    with servers.postgres() as postgres, fake_provider.running() as provider:
        provider.replies = [openai_whole()]
        environment = {
            **postgres.environment(),
            "LLM_PROVIDER": "openai",
            "OPENAI_API_KEY_FILE": str(key),
            "OPENAI_BASE_URL": provider.openai_url,
        }
        with (
            servers.postgres_exporter(postgres) as exporter,
            servers.node_exporter() as node,
            servers.app(environment) as app,
            servers.prometheus_of_the_stack("3s", app=app, postgres=exporter, node=node) as prometheus,
        ):
            answer = httpx.post(f"{app.url}/users", json={"name": "somebody"}, trust_env=False)
            running = Stack(app.url, postgres, provider, prometheus, answer.json()["api_key"])
            with running.users():
                wait_until(lambda: prometheus.query("sightline:slo_objective:ratio"), timeout=120)
                wait_until(lambda: (running.tile("overview", "Model p95").value or 0) > 0)
                for dashboard, title in (("database", "TPS"), ("overview", "HTTP p95"), ("overview", "Query p95")):
                    wait_until(lambda: (running.tile(dashboard, title).value or 0) > 0)  # noqa: B023
            yield running


def test_while_all_is_well_the_tiles_are_green(stack: Stack) -> None:
    assert stack.tile("overview", "Instances") == Tile(1, "1/1", "green")
    assert stack.tile("overview", "Postgres") == stack.tile("database", "Postgres") == Tile(1, "1/1", "green")
    for dashboard, title in (
        ("overview", "Error rate"),
        ("http", "5xx errors"),
        ("overview", "SQL errors"),
        ("database", "SQL errors"),
        ("overview", "LLM errors"),
    ):
        assert stack.tile(dashboard, title) == Tile(0, "", "green"), title
    for title in ("SLO 5xx", "SLO slow"):
        assert stack.tile("overview", title) == Tile(1, "", "green"), title
    for dashboard, title in (("overview", "HTTP p95"), ("overview", "Query p95"), ("llm", "Model p95")):
        assert stack.tile(dashboard, title).text.startswith("≤ "), title


def test_a_provider_that_fails_is_failing_and_not_idle(stack: Stack) -> None:
    stack.provider.replies = [Reply(status=400, body={"error": {"message": "no", "type": "invalid_request_error"}})]
    with stack.users():
        failing = Tile(-1, "failing", "red")
        wait_until(lambda: stack.tile("overview", "Model p95") == failing, timeout=120)
        wait_until(lambda: stack.tile("llm", "Model p95") == failing)
        wait_until(lambda: stack.tile("llm", "LLM errors").colour == "red")
    assert stack.tile("overview", "LLM errors").colour == "red"
    stack.provider.replies = [openai_whole()]


def test_the_death_of_postgresql_shows_in_tiles(stack: Stack) -> None:
    stack.postgres.running.stop(signal.SIGINT)
    with stack.users():
        down = Tile(0, "0/1", "red")
        wait_until(lambda: stack.tile("overview", "Postgres") == down)
        assert stack.tile("database", "Postgres") == down
        for dashboard in ("overview", "database"):
            wait_until(lambda: stack.tile(dashboard, "SQL errors").colour == "red")  # noqa: B023  is called at once
            for title in ("Query p95", "Pool in use"):
                wait_until(lambda: stack.tile(dashboard, title) == Tile(-1, "failing", "red"), timeout=120)  # noqa: B023
    assert stack.tile("database", "Wait p95") == Tile(-1, "failing", "red")


def test_a_dead_server_has_no_numbers(stack: Stack) -> None:
    """An average of 5 minutes would go on for 5 minutes."""
    for title in ("TPS", "Backends", "Cache hits", "Longest tx", "Blocked", "Deadlocks", "Uptime"):
        assert stack.tile("database", title) == Tile(None, "no answer", "text"), title


def test_failures_are_not_speed(stack: Stack) -> None:
    """Each request of the last minute was answered with 503, within milliseconds."""
    with stack.users():
        for dashboard in ("overview", "http"):
            wait_until(lambda: stack.tile(dashboard, "HTTP p95") == Tile(-1, "failing", "red"), timeout=120)  # noqa: B023
    assert stack.tile("overview", "Error rate").colour == stack.tile("http", "5xx errors").colour == "red"
    before, same, after = (
        stack.tile(dashboard, title).value or 0
        for dashboard, title in (("overview", "Error rate"), ("http", "5xx errors"), ("overview", "Error rate"))
    )
    assert min(before, after) * 0.99 <= same <= max(before, after) * 1.01, "one quantity, one window"


def test_minutes_of_outage_cost_their_share_of_a_month(stack: Stack) -> None:
    """By the recorded rates: bad requests' share times the seconds that were seen, of 30 days."""
    wait_until(lambda: stack.prometheus.query("job_slo:error_budget_remaining:ratio"), timeout=300)  # every minute
    # The month's sum reads every fifth minute, and the latest one may have been before the outage.
    wait_until(lambda: (stack.tile("overview", "SLO 5xx").value or 1) < 1, timeout=480)
    budget = stack.tile("overview", "SLO 5xx")
    assert budget.value is not None
    seen = stack.prometheus.value('count_over_time(job_slo:requests:rate5m{slo="availability"}[1h])') * 15
    most = seen / (30 * 86400) / 0.001  # everything failed since the start
    assert 1 - most <= budget.value < 1
    assert budget.value > -1
