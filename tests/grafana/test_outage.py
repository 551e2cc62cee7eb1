"""What the tiles say in real outages: of an instance, the model's provider, PostgreSQL in several ways, the exporters.

Real servers of the stack's own; scrapes and rules come every 3 seconds instead of every 15, windows stay as they are.
The tests follow the outages in their order.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from tests import servers
from tests.grafana.dashboards import DASHBOARDS, panels
from tests.grafana.tiles import Tile, tile
from tests.servers import Postgres, Prometheus, Running, wait_until
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import FakeProvider, Reply, openai_stream, openai_whole


@dataclass
class Stack:
    """The servers, and users who go on whatever happens."""

    app: Running
    postgres: Postgres
    provider: FakeProvider
    prometheus: Prometheus
    exporter: Running
    node: Running
    key: str

    @property
    def url(self) -> str:
        return self.app.url

    def tile(self, dashboard: str, title: str) -> Tile:
        return tile(self.prometheus, dashboard, title)

    def sql(self, *statements: str) -> None:
        """Executes them as PostgreSQL's superuser, each in a transaction of its own."""
        with psycopg.connect(self.postgres.superuser_dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def users(self, stream: bool = False) -> Iterator[None]:
        """Requests one after the other until the end of the context, however they are answered.

        stream: whether the model's answers are streamed.
        """

        def work(over: threading.Event) -> None:
            headers = {"Authorization": f"Bearer {self.key}"}
            with httpx.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False) as client:
                while not over.wait(0.2):
                    for request in (
                        ("GET", "/items?limit=5", None),
                        ("GET", "/users/me", None),
                        ("POST", "/chat", {"message": "How are you?", "stream": stream}),
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
            running = Stack(app, postgres, provider, prometheus, exporter, node, answer.json()["api_key"])
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


def test_one_of_two_instances_is_down(stack: Stack) -> None:
    (file,) = (word.partition("=")[2] for word in stack.prometheus.server.command if word.startswith("--config.file="))
    targets = Path(file).parent / "targets" / "app.yml"
    before = targets.read_text()
    alive = stack.url.removeprefix("http://")
    targets.write_text(json.dumps([{"targets": [alive, f"{stack.postgres.host}:{servers.free_port()}"]}]))
    wait_until(lambda: stack.tile("overview", "Instances") == Tile(0.5, "1/2", "orange"))
    targets_up = stack.tile("monitoring", "Targets up")
    assert (targets_up.text, targets_up.colour) == ("4/5", "orange"), "another one of the same job answers"
    targets.write_text(before)
    wait_until(lambda: stack.tile("overview", "Instances") == Tile(1, "1/1", "green"), timeout=400)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error")], ids=["refused", "rate limit"]
)
def test_a_provider_that_fails_is_failing_and_not_idle(stack: Stack, status: int, kind: str) -> None:
    stack.provider.replies = [Reply(status=status, body={"error": {"message": "no", "type": kind}})]
    with stack.users():
        failing = Tile(-1, "failing", "red")
        wait_until(lambda: stack.tile("overview", "Model p95") == failing, timeout=120)
        wait_until(lambda: stack.tile("llm", "Model p95") == failing)
        wait_until(lambda: stack.tile("llm", "LLM errors").colour == "red")
        for title in ("TTFT p95", "TPOT p95"):
            wait_until(lambda: stack.tile("llm", title) == failing)  # noqa: B023  is called at once
    assert stack.tile("overview", "LLM errors").colour == "red"
    stack.provider.replies = [openai_whole()]
    with stack.users():
        wait_until(lambda: (stack.tile("llm", "Model p95").value or 0) > 0, timeout=120)


def test_a_provider_that_never_answers_is_waited_for_and_not_idle(stack: Stack) -> None:
    """Users leave after ten seconds, so that no call fails."""
    stack.provider.replies = [openai_whole(delay=3600)]
    waiting = Tile(-2, "waiting", "orange")
    with stack.users():
        for dashboard, title in (("overview", "Model p95"), ("llm", "Model p95"), ("llm", "TTFT p95")):
            wait_until(lambda: stack.tile(dashboard, title) == waiting, timeout=180)  # noqa: B023  is called at once
        assert stack.tile("overview", "HTTP p95").text.startswith("≤ "), "other endpoints answer"


def test_answers_that_break_off_in_the_middle_are_failures(stack: Stack) -> None:
    """Each response has begun with 200, and none comes to its end."""
    stack.provider.replies = [openai_stream(finish_reason=None)]
    with stack.users(stream=True):
        for dashboard in ("overview", "llm"):
            wait_until(lambda: stack.tile(dashboard, "Model p95") == Tile(-1, "failing", "red"), timeout=180)  # noqa: B023
            wait_until(lambda: stack.tile(dashboard, "LLM errors").colour == "red")  # noqa: B023
    stack.provider.replies = [openai_whole()]
    with stack.users():
        wait_until(lambda: (stack.tile("llm", "Model p95").value or 0) > 0, timeout=120)


def test_a_server_whose_exporter_does_not_answer_may_be_well(stack: Stack) -> None:
    stack.exporter.process.send_signal(signal.SIGSTOP)
    try:
        with stack.users():
            for dashboard in ("overview", "database"):
                wait_until(lambda: stack.tile(dashboard, "Postgres") == Tile(0.5, "no exporter", "orange"))  # noqa: B023
            assert stack.tile("overview", "Query p95").text.startswith("≤ "), "the application's own"
            assert stack.tile("database", "TPS") == Tile(None, "no answer", "text")
    finally:
        stack.exporter.process.send_signal(signal.SIGCONT)
    wait_until(lambda: stack.tile("database", "Postgres") == Tile(1, "1/1", "green"))


def test_a_server_that_refuses_writes_is_up_and_its_queries_fail(stack: Stack) -> None:
    stack.sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    with stack.users():
        for dashboard, title in (("overview", "SQL errors"), ("database", "SQL errors"), ("http", "5xx errors")):
            wait_until(lambda: stack.tile(dashboard, title).colour == "red", timeout=120)  # noqa: B023
        assert stack.tile("overview", "Postgres") == Tile(1, "1/1", "green")
        assert (stack.tile("database", "Query p95").value or 0) > 0, "it answers reads"
    stack.sql("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


def test_a_server_that_refuses_the_services_logins_is_up_and_nothing_works(stack: Stack) -> None:
    role = stack.postgres.user
    stack.sql(
        f"ALTER ROLE {role} NOLOGIN",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
    )
    with stack.users():
        for dashboard in ("overview", "database"):
            for title in ("Query p95", "Pool in use"):
                wait_until(lambda: stack.tile(dashboard, title) == Tile(-1, "failing", "red"), timeout=120)  # noqa: B023
            assert stack.tile(dashboard, "SQL errors").colour == "red"
            assert stack.tile(dashboard, "Postgres") == Tile(1, "1/1", "green")
    stack.sql(f"ALTER ROLE {role} LOGIN")
    with stack.users():
        wait_until(lambda: (stack.tile("database", "Query p95").value or 0) > 0, timeout=120)


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
    before = stack.tile("overview", "SLO 5xx").value or 1
    with stack.users():  # each of whose requests fails; the rule comes every 30 seconds
        wait_until(lambda: (stack.tile("overview", "SLO 5xx").value or 1) < before, timeout=90)
    budget = stack.tile("overview", "SLO 5xx")
    assert budget.value is not None
    seen = stack.prometheus.value('count_over_time(job_slo:requests:rate1m{slo="availability"}[1h])') * 15
    most = seen / (30 * 86400) / 0.001  # everything failed since the start
    assert 1 - most <= budget.value < 1
    assert budget.value > -1


def test_hosts_and_servers_without_their_exporters_have_no_numbers(stack: Stack) -> None:
    """Each in the colour of words, and what does not answer counts as down."""
    stack.exporter.stop()
    stack.node.stop()
    wait_until(lambda: stack.tile("monitoring", "Targets up") == Tile(0, "2/4", "red"))
    assert stack.tile("database", "Postgres").text == "0/1", "the last word of its exporter was that it is down"
    shown = {(dashboard, title) for dashboard in ("overview",) for title in ("CPU", "Memory", "Disk")}
    shown |= {("host", panel["title"]) for panel in panels(DASHBOARDS["host"]) if panel["type"] == "stat"}
    assert len(shown) == 15
    for dashboard, title in sorted(shown):
        wait_until(lambda: stack.tile(dashboard, title) == Tile(None, "no data", "text"), timeout=400)  # noqa: B023


def test_when_nothing_answers_no_tile_is_green(stack: Stack) -> None:
    """Of the service, its database and its host."""
    stack.app.stop()
    wait_until(lambda: stack.tile("overview", "Instances") == Tile(0, "0/1", "red"))
    shown = [
        (name, panel["title"])
        for name in ("overview", "http", "llm", "database", "host")
        for panel in panels(DASHBOARDS[name])
        if panel["type"] == "stat"
    ]
    assert len(shown) > 50
    for dashboard, title in shown:
        wait_until(lambda: stack.tile(dashboard, title).colour in ("text", "red"), timeout=400)  # noqa: B023
    for dashboard, title in (("overview", "Alerts"), ("monitoring", "Critical")):
        wait_until(lambda: stack.tile(dashboard, title).colour == "red", timeout=120)  # noqa: B023
