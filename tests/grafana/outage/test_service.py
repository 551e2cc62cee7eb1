"""The service: idle, healthy, with an instance that is down or an endpoint that fails."""

from __future__ import annotations

import threading
from contextlib import suppress

import httpx2
import pytest

from tests import servers
from tests.grafana.outage.stack import Stack
from tests.grafana.tiles import Tile
from tests.running import free_port, meanwhile, wait_until


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
    wait_until(lambda: stack.tile("overview", "SLO 5xx") == Tile(1, "", "green"))
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
            url.removeprefix("http://") for url in (another.url, f"http://{stack.postgres.host}:{free_port()}")
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

    with stack.users(), meanwhile(ask), stack.fault("errors", share=1, path_prefix="/items/"):
        for dashboard, total in (("overview", "Error rate"), ("http", "5xx errors")):
            wait_until(lambda: stack.tile(dashboard, "Worst 5xx") == Tile(1, "/items/{item_id}", "red"))  # noqa: B023
            wait_until(lambda: 0 < (stack.tile(dashboard, total).value or 0) < 0.5)  # noqa: B023  is called at once
            wait_until(lambda: stack.tile(dashboard, "HTTP p95").text.startswith("≤ "))  # noqa: B023  succeeds, fast
