"""The server's own view: what happens in PostgreSQL, made to happen here, is what a real postgres_exporter shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests import servers
from tests.running import Running, wait_until
from tests.servers import Postgres
from tests.telemetry.database.conftest import TABLES
from tests.telemetry.database.exporter import scrape

Connection = psycopg.Connection[Any]
SCRAPE_TIMEOUT = 10.0  # seconds, of prometheus/prometheus.yml
FLUSH = "SELECT pg_stat_force_next_flush()"  # else reported once the session was idle for ten seconds


@pytest.fixture(scope="module")
def exporter(quiet_postgres: Postgres) -> Iterator[Running]:
    with servers.postgres_exporter(quiet_postgres) as running:
        yield running


@pytest.fixture
def dsn(quiet_postgres: Postgres) -> str:
    """The service's own database: of tables and statements the exporter sees those of the one it is connected to."""
    with psycopg.connect(quiet_postgres.dsn(), autocommit=True) as connection:
        connection.execute(TABLES)
    return quiet_postgres.dsn()


@pytest.fixture
def superuser(quiet_postgres: Postgres, dsn: str) -> Iterator[Connection]:
    with psycopg.connect(quiet_postgres.superuser_dsn, dbname="sightline", autocommit=True) as connection:
        yield connection


@pytest.fixture
def shown(exporter: Running) -> Callable[..., float]:
    """shown(metric, database, **labels) -> the sum of its samples with these labels; 0 where there is none."""

    def read(metric: str, database: str = "sightline", **labels: str) -> float:
        return sum(
            number
            for having, number in scrape(exporter).get((metric, database), ())
            if labels.items() <= having.items()
        )

    return read


def asked(connection: Connection, query: str) -> float:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return float(row[0])


def test_checkpoints(superuser: Connection, shown: Callable[..., float]) -> None:
    """PostgreSQL 17 moved them from pg_stat_bgwriter to pg_stat_checkpointer; the dashboard asks for either."""
    requested, timed, other = "pg_stat_checkpointer_num_requested", "pg_stat_checkpointer_num_timed", "bgwriter"
    if superuser.info.server_version < 170000:
        requested, timed, other = "pg_stat_bgwriter_checkpoints_req", "pg_stat_bgwriter_checkpoints_timed", "pointer"
    before = shown(requested, "")
    for _ in range(3):
        superuser.execute("CHECKPOINT")
    wait_until(lambda: shown(requested, "") == before + 3)
    assert shown(timed, "") >= 0
    assert shown(f"pg_stat_{other}_checkpoints_req", "") == 0  # never both: the dashboard would count twice


def test_temporary_files(superuser: Connection, shown: Callable[..., float]) -> None:
    files, size = shown("pg_stat_database_temp_files"), shown("pg_stat_database_temp_bytes")
    superuser.execute("SET work_mem = '64kB'")
    superuser.execute("SELECT n FROM generate_series(1, 100000) n ORDER BY random()")
    superuser.execute(FLUSH)
    wait_until(lambda: shown("pg_stat_database_temp_files") > files)
    assert shown("pg_stat_database_temp_bytes") - size > 1_000_000


def test_dead_rows(superuser: Connection, shown: Callable[..., float]) -> None:
    """What stands for bloat; nothing vacuums here."""
    table = {"relname": "account"}
    wait_until(lambda: shown("pg_stat_user_tables_n_live_tup", **table) == 10)
    superuser.execute("UPDATE account SET balance = 1 WHERE id <= 7")
    superuser.execute(FLUSH)
    wait_until(lambda: shown("pg_stat_user_tables_n_dead_tup", **table) == 7)
    assert shown("pg_stat_user_tables_n_live_tup", **table) == 10
    superuser.execute("VACUUM account")
    wait_until(lambda: shown("pg_stat_user_tables_n_dead_tup", **table) == 0)


def test_size(superuser: Connection, shown: Callable[..., float]) -> None:
    superuser.execute("CHECKPOINT")
    wait_until(
        lambda: shown("pg_database_size_bytes") == asked(superuser, "SELECT pg_database_size(current_database())")
    )


def test_locks_and_transactions_that_stay_open(dsn: str, exporter: Running, shown: Callable[..., float]) -> None:
    assert shown("pg_locks_count", mode="accessexclusivelock") == 0
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True):
        holder.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
        # The exporter asks for the size of this table too. It must give up waiting before Prometheus does, which would
        # otherwise see nothing of PostgreSQL while a migration holds up everybody.
        found = scrape(exporter, timeout=SCRAPE_TIMEOUT)
        failed = [labels["collector"] for labels, good in found["pg_scrape_collector_success", ""] if not good]
        assert failed == ["stat_user_tables"]
        wait_until(lambda: shown("pg_locks_count", mode="accessexclusivelock") == 1)
        assert shown("pg_stat_activity_count", state="idle in transaction") == 1
        assert shown("pg_stat_activity_count", state="idle", usename="sightline") == 1
        assert shown("pg_stat_activity_max_tx_duration", state="idle in transaction") > 0
        assert shown("pg_long_running_transactions_oldest_timestamp_seconds", "") > 0
    wait_until(lambda: shown("pg_locks_count", mode="accessexclusivelock") == 0)
    wait_until(lambda: shown("pg_stat_activity_count", state="idle in transaction") == 0)


def test_connections_against_the_limit(superuser: Connection, dsn: str, shown: Callable[..., float]) -> None:
    assert shown("pg_settings_max_connections", "") == asked(superuser, "SHOW max_connections")
    ours = {"usename": "sightline"}
    wait_until(lambda: shown("pg_stat_activity_count", **ours) == 0)
    with psycopg.connect(dsn), psycopg.connect(dsn), psycopg.connect(dsn):
        wait_until(lambda: shown("pg_stat_activity_count", **ours) == 3)


def test_deadlocks(dsn: str, shown: Callable[..., float]) -> None:
    before = shown("pg_stat_database_deadlocks")
    failures: list[Exception] = []
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:

        def lock(connection: Connection, id_: int) -> None:
            try:
                connection.execute("UPDATE account SET balance = 2 WHERE id = %s", [id_])
            except psycopg.errors.DeadlockDetected as error:
                failures.append(error)
                connection.rollback()

        lock(first, 1)
        lock(second, 2)
        other = threading.Thread(target=lock, args=(first, 2))
        other.start()
        lock(second, 1)
        other.join()
    assert len(failures) == 1
    wait_until(lambda: shown("pg_stat_database_deadlocks") == before + 1)


def test_cache_hits(superuser: Connection, shown: Callable[..., float]) -> None:
    superuser.execute("SELECT * FROM account")
    superuser.execute(FLUSH)
    query = "SELECT {} FROM pg_stat_database WHERE datname = current_database()"

    def within(column: str) -> bool:
        """Asking moves it too: ours is between two looks of the server's own."""
        first = asked(superuser, query.format(column))
        middle = shown(f"pg_stat_database_{column}")
        return first <= middle <= asked(superuser, query.format(column))

    wait_until(lambda: within("blks_hit"))
    wait_until(lambda: within("blks_read"))


def test_statements(dsn: str, superuser: Connection, shown: Callable[..., float]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(3):
            connection.execute("SELECT pg_sleep(0.1), 'of this test'")
    query = "SELECT queryid::text FROM pg_stat_statements WHERE query = 'SELECT pg_sleep($1), $2'"
    row = superuser.execute(query).fetchone()
    assert row is not None
    statement = {"queryid": row[0], "user": "sightline"}
    assert shown("pg_stat_statements_calls", **statement) == 3
    assert shown("pg_stat_statements_rows", **statement) == 3
    assert 0.3 <= shown("pg_stat_statements_seconds", **statement) < 30
