"""The application's count of transactions against PostgreSQL's own, as a real postgres_exporter shows it.

They agree for transactions that touch tables. The server's number lacks the others for as long as their session touches
none, which with a connection pool has no end: the transaction rate is the application's own (`db_transactions_total`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from tests import servers
from tests.running import Running, wait_until
from tests.servers import Postgres
from tests.telemetry.database.exporter import scrape
from tests.telemetry.database.measured import Runner, numbers

COMMITS, ROLLBACKS = 200, 50
NEEDED = {  # what rules, dashboards and docs/metrics.md rest on, in every supported version
    "pg_up",
    "pg_exporter_last_scrape_error",
    "pg_postmaster_start_time_seconds",
    "pg_settings_max_connections",
    "pg_stat_activity_count",
    "pg_stat_activity_max_tx_duration",
    "pg_long_running_transactions_oldest_timestamp_seconds",
    "pg_database_size_bytes",
    "pg_database_wraparound_age_datfrozenxid_seconds",
    "pg_locks_count",
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    "pg_stat_database_blks_hit",
    "pg_stat_database_blks_read",
    "pg_stat_database_deadlocks",
    "pg_stat_database_temp_bytes",
    "pg_stat_database_temp_files",
    "pg_stat_database_conflicts",
    "pg_stat_database_tup_returned",
    "pg_wal_size_bytes",
    "pg_stat_database_numbackends",
    "pg_stat_user_tables_n_dead_tup",
    "pg_stat_user_tables_n_live_tup",
    "pg_stat_user_tables_seq_tup_read",
    "pg_stat_user_tables_last_autovacuum",
    "pg_stat_statements_calls",
    "pg_stat_statements_rows",
    "pg_stat_statements_seconds",
}


@pytest.fixture(scope="module")
def exporter(quiet_postgres: Postgres) -> Iterator[Running]:
    with servers.postgres_exporter(quiet_postgres) as running:
        yield running


Counts = Callable[[], tuple[float, float]]
FLUSH = text("SELECT pg_stat_force_next_flush(), count(*) FROM account")  # this session's numbers, at its end


@pytest.fixture
def server_counts(run: Runner, exporter: Running) -> Counts:
    """Commits and rollbacks of the scenario's database, as the exporter shows them right now."""
    database = run.dsn.rpartition("/")[2]

    def counts() -> tuple[float, float]:
        found = scrape(exporter)
        commits, rollbacks = (found[f"pg_stat_database_xact_{end}", database][0][1] for end in ("commit", "rollback"))
        return commits, rollbacks

    return counts


def test_transactions_that_touch_tables_agree(run: Runner, exporter: Running, server_counts: Counts) -> None:
    before: tuple[float, float] = (0, 0)

    def scenario(engine: Engine) -> None:
        nonlocal before
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            # The session that made the tables has ended, and what it did is counted.
            clients = "pg_stat_database_numbackends", run.dsn.rpartition("/")[2]
            wait_until(lambda: scrape(exporter)[clients][0][1] == 1)
            connection.execute(FLUSH)
            before = server_counts()
        for number in range(COMMITS + ROLLBACKS):
            with engine.connect() as connection:
                connection.execute(text("UPDATE account SET balance = balance + 1 WHERE id = 1"))
                if number < COMMITS:
                    connection.commit()
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(FLUSH)
        # psycopg's DEALLOCATE ALL after a rollback would count too.
        wait_until(lambda: server_counts() == (before[0] + COMMITS + 1, before[1] + ROLLBACKS))

    found = run(scenario, connect_args={"prepare_threshold": None})
    assert found["transactions_total commit"] == COMMITS + 2  # of FLUSH
    assert found["transactions_total rollback"] == ROLLBACKS


def test_transactions_that_touch_no_table_are_the_applications_to_count(run: Runner, server_counts: Counts) -> None:
    """The server has them when their session touches a table, or ends: its rate lacks them, and has a spike later."""

    def scenario(engine: Engine) -> None:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            connection.execute(FLUSH)
            connection.execute(text("SELECT 1"))
            connection.execute(FLUSH)
        before = server_counts()
        for number in range(COMMITS + ROLLBACKS):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                if number < COMMITS:
                    connection.commit()
        ours = numbers(run.pool)
        assert (ours["transactions_total commit"], ours["transactions_total rollback"]) == (COMMITS + 3, ROLLBACKS)
        with psycopg.connect(run.dsn, autocommit=True) as another:  # its transaction, of later, is there at once
            another.execute(str(FLUSH).encode())
        wait_until(lambda: server_counts() != before)
        assert server_counts()[0] < before[0] + COMMITS
        assert server_counts()[1] == before[1]
        with autocommit.connect() as connection:
            connection.execute(FLUSH)
        wait_until(lambda: server_counts()[1] == before[1] + ROLLBACKS)
        assert server_counts()[0] >= before[0] + COMMITS

    run(scenario, connect_args={"prepare_threshold": None})


def test_the_exporters_role_sees_what_is_needed_and_no_query_text(quiet_postgres: Postgres) -> None:
    run = Runner("sync", quiet_postgres.dsn())

    def scenario(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS secret_table (id int)"))
            connection.execute(text("SELECT count(*) FROM secret_table WHERE id = 4711"))

    run(scenario)
    with servers.postgres_exporter(quiet_postgres) as exporter:
        found = wait_until(lambda: _complete(exporter))
    labels = {value for samples in found.values() for names, _ in samples for value in names.values()}
    assert not [value for value in labels if "SELECT" in value.upper() or "4711" in value]
    users = {names["user"] for names, _ in found["pg_stat_statements_calls", "sightline"]}
    assert "sightline" in users
    assert "sightline_exporter" not in users
    assert found["pg_exporter_last_scrape_error", ""][0][1] == 0


def _complete(exporter: Running) -> dict[tuple[str, str], list[tuple[dict[str, str], float]]]:
    found = scrape(exporter)
    missing = NEEDED - {name for name, _ in found}
    assert not missing
    return found


def test_docker_and_native_mode_start_the_exporter_alike() -> None:
    root = Path(__file__).resolve().parents[3]
    compose = (root / "docker-compose.yml").read_text()
    assert 'command: ["@/etc/postgres_exporter.args"]' in compose
    assert "./postgres/exporter.args:/etc/postgres_exporter.args:ro" in compose
