"""A PostgreSQL that answers, but not the service: locks, failing statements, no writes, no logins."""

from __future__ import annotations

import signal

import psycopg

from tests.grafana.outage.stack import Stack
from tests.grafana.tiles import Tile
from tests.running import wait_until


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


def test_failed_statements_do_not_count_as_fast(stack: Stack) -> None:
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
