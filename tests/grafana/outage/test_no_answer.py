"""One server after the other stops: each test goes on where the one before has ended."""

from __future__ import annotations

import signal

from tests.grafana.dashboards import DASHBOARDS, panels
from tests.grafana.outage.stack import Stack
from tests.grafana.tiles import Tile
from tests.running import wait_until


def test_hosts_and_servers_without_their_exporters_have_no_numbers(stack: Stack) -> None:
    """Each in the colour of words, and what does not answer counts as down."""
    stack.postgres.running.stop(signal.SIGINT)
    wait_until(lambda: stack.tile("database", "Postgres") == Tile(0, "0/1", "red"))
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
