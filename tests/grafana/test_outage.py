"""What the tiles say in real outages: of an instance, the model's provider, PostgreSQL in several ways, the exporters.

Real servers of the stack's own; scrapes and rules come every 3 seconds instead of every 15, windows stay as they are.
The tests follow the outages in their order.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import httpx2
import psycopg
import pytest

from tests import servers
from tests.grafana import stack as stacks
from tests.grafana.dashboards import DASHBOARDS, panels
from tests.grafana.stack import Stack
from tests.grafana.tiles import Tile
from tests.servers import wait_until
from tests.telemetry.llm.fake_provider import Reply, openai_stream, openai_whole


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    key = tmp_path_factory.mktemp("llm") / "key"
    key.write_text("none")
    with stacks.running(key) as running:
        yield running


def test_without_traffic_there_is_nothing_to_be_a_share_of(stack: Stack) -> None:
    """Before the first request: an error rate of 0 % would be as green as one of thousands of requests."""
    idle = Tile(None, "idle", "text")
    said = {name: tile for name, tile in stack.idle.items() if tile.text == "idle"}
    shares = {("overview", "Error rate"), ("http", "5xx errors"), ("http", "4xx errors"), ("http", "Slow share")}
    shares |= {(dashboard, "LLM errors") for dashboard in ("overview", "llm")}
    shares |= {("llm", title) for title in ("No usage", "Cost/call", "Unpriced", "TTFT p95", "TPOT p95")}
    speeds = {(dashboard, "HTTP p95") for dashboard in ("overview", "http")} | {("loadtest", "Server p95")}
    speeds |= {(dashboard, "Model p95") for dashboard in ("overview", "llm")}
    assert {name: said.get(name) for name in shares | speeds} == dict.fromkeys(shares | speeds, idle)
    for dashboard in ("overview", "http"):
        assert stack.idle[dashboard, "Worst 5xx"] == Tile(None, "idle -", "text")
    for title in ("Failed", "Client p95"):
        assert stack.idle["loadtest", title] == Tile(None, "no test", "text")
    assert stack.idle["http", "Requests"].value == 0


def test_while_all_is_well_the_tiles_are_green(stack: Stack) -> None:
    for dashboard, title, up in (
        ("overview", "Instances", "1/1"),
        ("overview", "Targets up", "5/5"),
        ("monitoring", "Targets up", "5/5"),
        ("host", "Hosts up", "1/1"),
        ("overview", "Postgres", "1/1"),
        ("database", "Postgres", "1/1"),
        ("monitoring", "Watchdog", "arrives"),
        ("monitoring", "Config", "ok"),
    ):
        wait_until(lambda: stack.tile(dashboard, title) == Tile(1, up, "green"))  # noqa: B023  is called at once
    for dashboard in ("overview", "database"):
        assert stack.tile(dashboard, "SQL errors") == Tile(0, "", "green")
    assert stack.tile("overview", "SLO 5xx") == Tile(1, "", "green")
    budget = stack.tile("overview", "SLO slow")  # on a busy machine a request may be; a minute is little of a month
    assert (budget.text, budget.colour) == ("", "green")
    assert budget.value == pytest.approx(1, abs=0.05)
    with stack.users():
        for dashboard, title in (("overview", "HTTP p95"), ("overview", "Query p95"), ("llm", "Model p95")):
            wait_until(lambda: stack.tile(dashboard, title).text.startswith("≤ "))  # noqa: B023  is called at once
        for dashboard, title in (("overview", "Error rate"), ("http", "5xx errors"), ("overview", "LLM errors")):
            wait_until(lambda: stack.tile(dashboard, title) == Tile(0, "", "green"))  # noqa: B023  is called at once
        for dashboard in ("overview", "http"):
            wait_until(lambda: stack.tile(dashboard, "Worst 5xx") == Tile(0, "none fails", "green"))  # noqa: B023


def test_one_of_three_instances_is_down(stack: Stack) -> None:
    with servers.app(stack.environment) as another:
        addresses = (
            url.removeprefix("http://") for url in (another.url, f"http://{stack.postgres.host}:{servers.free_port()}")
        )
        with stack.targets("app", *addresses):
            wait_until(lambda: stack.tile("overview", "Instances").look == ("2/3", "orange"))
            for dashboard in ("overview", "monitoring"):  # others of the same job answer
                wait_until(lambda: stack.tile(dashboard, "Targets up").look == ("6/7", "orange"))  # noqa: B023
    wait_until(lambda: stack.tile("overview", "Instances") == Tile(1, "1/1", "green"), timeout=400)


def test_an_endpoint_that_fails_is_named_however_small_its_share_of_the_traffic(stack: Stack) -> None:
    def ask(over: threading.Event) -> None:
        with stack.client() as client:
            while not over.wait(5):
                with suppress(httpx2.HTTPError):
                    client.get("/items/1")

    with stack.users(), servers.meanwhile(ask), stack.fault("errors", share=1, path_prefix="/items/"):
        for dashboard, total in (("overview", "Error rate"), ("http", "5xx errors")):
            wait_until(lambda: stack.tile(dashboard, "Worst 5xx") == Tile(1, "/items/{item_id}", "red"))  # noqa: B023
            wait_until(lambda: 0 < (stack.tile(dashboard, total).value or 0) < 0.5)  # noqa: B023  is called at once
            wait_until(lambda: stack.tile(dashboard, "HTTP p95").text.startswith("≤ "))  # noqa: B023  succeeds, fast


class FullDisk(BaseHTTPRequestHandler):
    """An exporter of a host whose disk has no space left."""

    avail, files_free = 1e7, 900

    def do_GET(self) -> None:
        labels = '{device="/dev/vda1",fstype="ext4",mountpoint="/"}'
        values = {
            "size_bytes": 1e9,
            "avail_bytes": self.avail,
            "files": 1000,
            "files_free": self.files_free,
            "readonly": 0,
        }
        lines = [f"node_filesystem_{name}{labels} {value:.0f}" for name, value in values.items()]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write("\n".join(['node_uname_info{nodename="full",release="6"} 1', *lines, ""]).encode())

    def log_message(self, *arguments: object) -> None:
        pass


class NoInodes(FullDisk):
    """An exporter of a host that can create no file, whatever space is left."""

    avail, files_free = 9e8, 10


@pytest.mark.parametrize("exporter", [FullDisk, NoInodes])
def test_a_full_disk_of_one_of_two_hosts_and_then_its_silence(stack: Stack, exporter: type[FullDisk]) -> None:
    with servers.web_server(exporter) as url, stack.targets("node", url.removeprefix("http://")):
        for dashboard in ("overview", "host"):
            wait_until(lambda: stack.tile(dashboard, "Disk") == Tile(0.99, "", "red"))  # noqa: B023
        wait_until(lambda: stack.tile("host", "Hosts up") == Tile(1, "2/2", "green"))
    wait_until(lambda: stack.tile("host", "Hosts up") == Tile(1, "1/1", "green"), timeout=400)
    with stack.targets("node", url.removeprefix("http://")):  # which no longer answers
        wait_until(lambda: stack.tile("host", "Hosts up") == Tile(0.5, "1/2", "orange"))
        wait_until(lambda: (stack.tile("host", "Disk").value or 1) < 0.99)
    wait_until(lambda: stack.tile("host", "Hosts up") == Tile(1, "1/1", "green"), timeout=400)


def test_an_alertmanager_that_does_not_answer(stack: Stack) -> None:
    stack.alertmanager.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: stack.tile("monitoring", "Watchdog") == Tile(0, "lost", "red"))
        wait_until(lambda: stack.tile("monitoring", "Config") == Tile(0.5, "no answer", "orange"))
        for dashboard in ("overview", "monitoring"):  # there is no other one of its job
            wait_until(lambda: stack.tile(dashboard, "Targets up").look == ("4/5", "red"))  # noqa: B023
        wait_until(lambda: stack.tile("monitoring", "Unsent").colour != "green")
    finally:
        stack.alertmanager.process.send_signal(signal.SIGCONT)
    wait_until(lambda: stack.tile("monitoring", "Watchdog") == Tile(1, "arrives", "green"), timeout=400)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error")], ids=["refused", "rate limit"]
)
def test_a_provider_that_fails_is_failing_and_not_idle(stack: Stack, status: int, kind: str) -> None:
    stack.provider.replies = [Reply(status=status, body={"error": {"message": "no", "type": kind}})]
    with stack.users():
        failing = Tile(-1, "failing", "red")
        wait_until(lambda: stack.tile("overview", "Model p95") == failing)
        wait_until(lambda: stack.tile("llm", "Model p95") == failing)
        for dashboard in ("overview", "llm"):
            wait_until(lambda: stack.tile(dashboard, "LLM errors").colour == "red")  # noqa: B023  is called at once
        for title in ("TTFT p95", "TPOT p95"):
            wait_until(lambda: stack.tile("llm", title) == failing)  # noqa: B023  is called at once
    stack.provider.replies = [openai_whole()]
    with stack.users():
        wait_until(lambda: (stack.tile("llm", "Model p95").value or 0) > 0)


def test_a_provider_that_never_answers_is_waited_for_and_not_idle(stack: Stack) -> None:
    """Users leave after ten seconds, so that no call fails."""
    stack.provider.replies = [openai_whole(delay=3600)]
    waiting = Tile(-2, "waiting", "orange")
    with stack.users():
        for dashboard, title in (("overview", "Model p95"), ("llm", "Model p95"), ("llm", "TTFT p95")):
            wait_until(lambda: stack.tile(dashboard, title) == waiting)  # noqa: B023  is called at once
        wait_until(lambda: stack.tile("overview", "HTTP p95").text.startswith("≤ "))  # other endpoints answer


def test_answers_that_break_off_in_the_middle_are_failures(stack: Stack) -> None:
    """Each response has begun with 200, and none comes to its end."""
    stack.provider.replies = [openai_stream(finish_reason=None)]
    with stack.users(stream=True):
        for dashboard in ("overview", "llm"):
            wait_until(lambda: stack.tile(dashboard, "Model p95") == Tile(-1, "failing", "red"))  # noqa: B023
            wait_until(lambda: stack.tile(dashboard, "LLM errors").colour == "red")  # noqa: B023
    stack.provider.replies = [openai_whole()]
    with stack.users():
        wait_until(lambda: (stack.tile("llm", "Model p95").value or 0) > 0)


def test_a_server_whose_exporter_does_not_answer_may_be_well(stack: Stack) -> None:
    stack.exporter.process.send_signal(signal.SIGSTOP)
    try:
        with stack.users():
            for dashboard in ("overview", "database"):
                wait_until(lambda: stack.tile(dashboard, "Postgres") == Tile(0.5, "no exporter", "orange"))  # noqa: B023
            wait_until(lambda: stack.tile("overview", "Query p95").text.startswith("≤ "))  # the application's own
            wait_until(lambda: stack.tile("database", "TPS") == Tile(None, "no answer", "text"))
    finally:
        stack.exporter.process.send_signal(signal.SIGCONT)
    wait_until(lambda: stack.tile("database", "Postgres") == Tile(1, "1/1", "green"))


def test_queries_that_hang_are_not_idle(stack: Stack) -> None:
    """A migration that locks the table that each request reads; statements have 30 seconds."""
    hangs = {Tile(-1, "failing", "red"), Tile(-2, "waiting", "orange")}
    with psycopg.connect(stack.postgres.superuser_dsn, dbname="sightline") as migration:
        migration.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        with stack.users(), stack.users(), stack.users():
            for dashboard, title in (("overview", "Query p95"), ("database", "Query p95"), ("overview", "HTTP p95")):
                wait_until(lambda: stack.tile(dashboard, title) in hangs)  # noqa: B023  is called at once
            wait_until(lambda: stack.tile("database", "Blocked").colour in ("orange", "red"))
        migration.rollback()
    with stack.users():
        wait_until(lambda: (stack.tile("database", "Query p95").value or 0) > 0)


def test_statements_that_all_fail_are_not_fast(stack: Stack) -> None:
    """Failed statements are timed, too: each of them takes a millisecond."""
    stack.sql("ALTER SCHEMA public RENAME TO elsewhere")
    try:
        with stack.users():
            failing = Tile(-1, "failing", "red")
            for dashboard in ("overview", "database"):
                wait_until(lambda: stack.tile(dashboard, "Query p95") == failing)  # noqa: B023
                wait_until(lambda: stack.tile(dashboard, "SQL errors").colour == "red")  # noqa: B023
                wait_until(lambda: stack.tile(dashboard, "Postgres") == Tile(1, "1/1", "green"))  # noqa: B023
            wait_until(lambda: stack.tile("http", "Slow share") == failing)
    finally:
        stack.sql("ALTER SCHEMA elsewhere RENAME TO public")
    with stack.users():
        wait_until(lambda: (stack.tile("database", "Query p95").value or 0) > 0)


def test_a_server_that_refuses_writes_is_up_and_its_queries_fail(stack: Stack) -> None:
    stack.sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    with stack.users():
        for dashboard, title in (("overview", "SQL errors"), ("database", "SQL errors"), ("http", "5xx errors")):
            wait_until(lambda: stack.tile(dashboard, title).colour == "red")  # noqa: B023
        wait_until(lambda: stack.tile("overview", "Postgres") == Tile(1, "1/1", "green"))
        wait_until(lambda: (stack.tile("database", "Query p95").value or 0) > 0)  # it answers reads
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
                wait_until(lambda: stack.tile(dashboard, title) == Tile(-1, "failing", "red"))  # noqa: B023
            wait_until(lambda: stack.tile(dashboard, "SQL errors").colour == "red")  # noqa: B023  is called at once
            wait_until(lambda: stack.tile(dashboard, "Postgres") == Tile(1, "1/1", "green"))  # noqa: B023
    stack.sql(f"ALTER ROLE {role} LOGIN")
    with stack.users():
        wait_until(lambda: (stack.tile("database", "Query p95").value or 0) > 0)


def test_the_death_of_postgresql_shows_in_tiles(stack: Stack) -> None:
    stack.postgres.running.stop(signal.SIGINT)
    with stack.users():
        for dashboard in ("overview", "database"):
            wait_until(lambda: stack.tile(dashboard, "Postgres") == Tile(0, "0/1", "red"))  # noqa: B023
            wait_until(lambda: stack.tile(dashboard, "SQL errors").colour == "red")  # noqa: B023  is called at once
            for title in ("Query p95", "Pool in use"):
                wait_until(lambda: stack.tile(dashboard, title) == Tile(-1, "failing", "red"))  # noqa: B023
        wait_until(lambda: stack.tile("database", "Wait p95") == Tile(-1, "failing", "red"))
        for dashboard in ("overview", "llm"):  # whose provider is well, but no longer called
            wait_until(lambda: stack.tile(dashboard, "Model p95") == Tile(None, "idle", "text"))  # noqa: B023


def test_a_dead_server_has_no_numbers(stack: Stack) -> None:
    """An average of 5 minutes would go on for 5 minutes."""
    for title in ("TPS", "Backends", "Cache hits", "Longest tx", "Blocked", "Deadlocks", "Uptime"):
        assert stack.tile("database", title) == Tile(None, "no answer", "text"), title


def test_failures_are_not_speed(stack: Stack) -> None:
    """Each request of the last minute was answered with 503, within milliseconds."""
    with stack.users():
        for dashboard in ("overview", "http"):
            wait_until(lambda: stack.tile(dashboard, "HTTP p95") == Tile(-1, "failing", "red"))  # noqa: B023
        for dashboard, title in (("overview", "Error rate"), ("http", "5xx errors")):
            wait_until(lambda: stack.tile(dashboard, title).colour == "red")  # noqa: B023  is called at once
    before, same, after = (
        stack.tile(dashboard, title).value or 0
        for dashboard, title in (("overview", "Error rate"), ("http", "5xx errors"), ("overview", "Error rate"))
    )
    assert min(before, after) * 0.99 <= same <= max(before, after) * 1.01, "one quantity, one window"


def test_minutes_of_outage_cost_their_share_of_a_month(stack: Stack) -> None:
    """By the recorded rates: bad requests' share times the seconds that were seen, of 30 days."""
    before = stack.tile("overview", "SLO 5xx").value or 1
    with stack.users():  # each of whose requests fails; the rule comes every 30 seconds
        wait_until(lambda: (stack.tile("overview", "SLO 5xx").value or 1) < before)
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
    for dashboard in ("overview", "monitoring"):
        wait_until(lambda: stack.tile(dashboard, "Targets up") == Tile(0, "3/5", "red"))  # noqa: B023  is called at once
    assert stack.tile("host", "Hosts up") == Tile(0, "0/1", "red")
    assert stack.tile("database", "Postgres").text == "0/1", "the last word of its exporter was that it is down"
    shown = {(dashboard, title) for dashboard in ("overview",) for title in ("CPU", "Memory", "Disk")}
    shown |= stack.tiles("host").keys() - {("host", "Hosts up")}
    assert len(shown) == 14
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
    no_data = Tile(None, "no data", "text")
    for title in ("Requests", "Error rate", "HTTP p95", "LLM errors", "Model p95", "Query p95", "Pool in use"):
        wait_until(lambda: stack.tile("overview", title) == no_data)  # noqa: B023  it is not idle
    for dashboard in ("overview", "http"):
        wait_until(lambda: stack.tile(dashboard, "Worst 5xx") == Tile(None, "no data -", "text"))  # noqa: B023
    for dashboard, title in shown:
        wait_until(lambda: stack.tile(dashboard, title).colour in ("text", "red"), timeout=400)  # noqa: B023
    for dashboard, title in (("overview", "Alerts"), ("monitoring", "Critical")):
        wait_until(lambda: stack.tile(dashboard, title).colour == "red")  # noqa: B023


def test_without_rules_it_is_unknown_what_fires(stack: Stack) -> None:
    """After all others: Prometheus goes on and evaluates nothing, as with an empty folder of rules."""
    assert {row["severity"] for row in stack.firing("overview")} >= {"critical"}
    stack.configuration.write_text(stack.configuration.read_text().replace("rules/*.yml", "no-rules/*.yml"))
    stack.prometheus.process.send_signal(signal.SIGHUP)
    no_rules = Tile(None, "no rules", "text")
    wait_until(lambda: stack.tile("overview", "Alerts") == no_rules)
    assert stack.tile("monitoring", "Critical") == stack.tile("monitoring", "Warnings") == no_rules
    assert stack.firing("overview") == stack.firing("monitoring") == [], "the table says that it is unknown"
