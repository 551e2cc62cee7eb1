"""PostgreSQL has stopped, and the service goes on: each test goes on where the one before has ended."""

from __future__ import annotations

import signal

from prometheus.src.settings import SETTINGS
from tests.grafana.outage.stack import Stack
from tests.grafana.tiles import Tile
from tests.running import wait_until


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


def test_a_stopped_server_has_no_values(stack: Stack) -> None:
    """An average of 5 minutes would go on for 5 minutes."""
    for title in ("TPS", "Backends", "Cache hits", "Longest tx", "Blocked", "Deadlocks", "Uptime"):
        assert stack.tile("database", title) == Tile(None, "no answer", "text"), title


def test_failures_do_not_count_as_fast_responses(stack: Stack) -> None:
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
    """By the recorded rates: bad requests' share times the seconds that were seen, of all days of the budget."""
    before = stack.tile("overview", "SLO 5xx").value or 1
    with stack.users():  # each of whose requests fails; the rule comes every 30 seconds
        wait_until(lambda: (stack.tile("overview", "SLO 5xx").value or 1) < before)
    budget = stack.tile("overview", "SLO 5xx")
    assert budget.value is not None
    seen = stack.prometheus.value('count_over_time(job_slo:requests:rate1m{slo="availability"}[1h])') * 15
    # Everything failed since the start.
    most = seen / (SETTINGS.budget_days * 86400) / SETTINGS.objectives["availability"].budget
    assert 1 - most <= budget.value < 1
    assert budget.value > -1
