from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from app.telemetry.database import metrics
from tests import servers
from tests.servers import Postgres
from tests.telemetry.database.measured import METRICS, Runner, kill_backends

TABLES = """
DROP TABLE IF EXISTS account, owner;
CREATE TABLE owner (id int PRIMARY KEY);
CREATE TABLE account (
    id int PRIMARY KEY,
    balance int NOT NULL DEFAULT 0,
    owner int REFERENCES owner DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO account (id) SELECT generate_series(1, 10);
"""


@pytest.fixture(autouse=True)
def nothing_of_other_tests() -> None:
    """Reading all numbers stays quick as long as there are few."""
    for metric in METRICS:
        metric.clear()
    metrics._pools.clear()


@pytest.fixture(scope="session")
def quiet_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that counts nothing but the tests' transactions, with two-phase commit switched on."""
    with servers.postgres(flags=("-cautovacuum=off", "-cmax_prepared_transactions=5")) as running:
        yield running


@pytest.fixture(scope="session")
def empty_database(quiet_postgres: Postgres) -> str:
    return quiet_postgres.create_database()


@pytest.fixture
def dsn(empty_database: str) -> str:
    """A database with ten accounts, as new."""
    kill_backends(empty_database)  # what an earlier test has left to the garbage collector would count as a client
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(TABLES)
    return empty_database


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, dsn: str) -> Runner:
    """run(scenario, **engine options) -> the numbers it left."""
    return Runner(request.param, dsn)
