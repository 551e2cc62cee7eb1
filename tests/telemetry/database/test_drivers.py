"""One event is one event whatever the driver: psycopg, psycopg2, pg8000 and asyncpg count the same."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import psycopg
import pytest
from sqlalchemy import Connection, Engine, exc, text

from tests.running import free_port, wait_until
from tests.servers import Postgres
from tests.telemetry.database.measured import Numbers, Runner, ended, kill_backends, pool_numbers, queries

ADD = text("UPDATE account SET balance = balance + 1 WHERE id = 1")
ONE = text("SELECT 1")
DRIVERS = [
    ("sync", "psycopg"),
    ("async", "psycopg"),
    ("sync", "psycopg2"),
    ("sync", "pg8000"),
    ("async", "asyncpg"),
]


# pg8000 makes text of whatever it does not know, and leaves refusing to the server.
REFUSING = pytest.mark.parametrize(
    "run", [pair for pair in DRIVERS if pair[1] != "pg8000"], ids="-".join, indirect=True
)


@pytest.fixture(params=DRIVERS, ids="-".join)
def run(request: pytest.FixtureRequest, dsn: str, quiet_postgres: Postgres) -> Runner:
    kind, driver = request.param
    return Runner(kind, dsn, quiet_postgres, driver)


def transactions(numbers: Numbers) -> dict[str, float]:
    """How many ended, by outcome."""
    prefix = "transactions_total "
    return {name.removeprefix(prefix): number for name, number in numbers.items() if name.startswith(prefix)}


def refused_by_the_driver(connection: Connection, driver: str) -> None:
    """A statement that the driver refuses by itself: the server has nothing against the transaction."""
    statement, value = {
        "psycopg": ("SELECT :value", object()),
        "psycopg2": ("SELECT :value", object()),
        "asyncpg": ("SELECT CAST(:value AS int)", "not a number"),
    }[driver]
    with pytest.raises(exc.DBAPIError):
        connection.execute(text(statement), {"value": value})


def test_refused_connections(run: Runner) -> None:
    """Nobody listens: for asyncpg that is an OSError, which SQLAlchemy passes on untouched."""
    server, _, name = run.dsn.rpartition("/")
    run.dsn, run.postgres = f"{server.rpartition(':')[0]}:{free_port()}/{name}", None

    def scenario(engine: Engine) -> None:
        for _ in range(3):
            with pytest.raises((exc.DBAPIError, OSError)):
                engine.connect()

    assert run(scenario) == {
        "query_errors_total CONNECT 08": 3,
        "pool_checkout_wait_seconds_count": 3,
        "pool_connections_max": 15,
    }


def test_wrong_password(run: Runner) -> None:
    right, run.dsn = run.dsn, run.dsn.replace("sightline:", "sightline:wrong", 1)

    def scenario(engine: Engine) -> None:
        with pytest.raises(Exception, match="password"):  # asyncpg's own class on SQLAlchemy 2.0
            engine.connect()

    assert run(scenario)["query_errors_total CONNECT 08"] == 1
    assert right != run.dsn


@pytest.mark.parametrize(
    ("statement", "label"),
    [
        ("SELECT 1 / 0", "SELECT 22"),
        ("INSERT INTO account (id) VALUES (1)", "INSERT 23"),
        ("SELECT nonsense", "SELECT 42"),
        ("SELECT pg_sleep(30)", "SELECT 57"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$", "OTHER 53"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'QQ123'; END $$", "OTHER other"),
    ],
)
def test_errors_of_the_server(run: Runner, statement: str, label: str) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            timeout = "200ms" if "pg_sleep" in statement else "60s"  # the others are to fail by themselves
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{timeout}'")
            with pytest.raises(exc.DBAPIError):
                connection.exec_driver_sql(statement)

    operation = label.split()[0]
    assert run(scenario) == {
        **queries(OTHER=1),
        f"query_duration_seconds_count {operation} other": 2 if operation == "OTHER" else 1,
        f"query_errors_total {label}": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }


def test_killed_while_idle(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ONE)
            kill_backends(run.dsn)
            with pytest.raises((exc.DBAPIError, OSError)):
                connection.execute(ONE)
            connection.rollback()
            connection.execute(ONE)

    found = run(scenario)
    assert found.pop("pool_invalidations_total error") == 1
    assert found == {
        **queries(SELECT=3),
        "query_errors_total SELECT 08": 1,
        **ended(rollback=2),
        **pool_numbers(checkouts=2),
    }


def test_killed_in_the_middle_of_a_query(run: Runner) -> None:
    def kill() -> None:
        with psycopg.connect(run.dsn, autocommit=True) as connection:
            asleep = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
            wait_until(lambda: connection.execute(f"{asleep} AND pg_terminate_backend(pid)").fetchone())

    def scenario(engine: Engine) -> None:
        killer = threading.Thread(target=kill)
        with engine.connect() as connection:
            killer.start()
            with pytest.raises((exc.DBAPIError, OSError)):
                connection.execute(text("SELECT pg_sleep(60)"))
        killer.join()

    found = run(scenario)
    assert {name: number for name, number in found.items() if "errors" in name or "transactions" in name} == {
        "query_errors_total SELECT 08": 1,
        "transactions_total rollback": 1,
    }


@REFUSING
def test_an_error_of_the_driver_does_not_make_a_commit_a_rollback(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ADD)
            refused_by_the_driver(connection, run.driver)
            connection.commit()
            assert connection.scalar(text("SELECT balance FROM account WHERE id = 1")) == 1

    found = run(scenario)
    assert {name: number for name, number in found.items() if "transactions" in name or "errors" in name} == {
        "query_errors_total SELECT other": 1,
        "transactions_total commit": 1,
        "transactions_total rollback": 1,  # of the SELECT
    }


def test_commit_of_an_aborted_transaction(run: Runner) -> None:
    """PostgreSQL answers ROLLBACK, which pg8000 alone takes for a failure."""
    raises = run.driver == "pg8000"

    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ADD)
            with pytest.raises(exc.DBAPIError):
                connection.execute(text("SELECT 1 / 0"))
            with pytest.raises(exc.InterfaceError) if raises else nullcontext():
                connection.commit()
            connection.rollback()
            assert connection.scalar(text("SELECT balance FROM account WHERE id = 1")) == 0

    found = run(scenario)
    assert {name: number for name, number in found.items() if "transactions" in name} == {
        "transactions_total commit_failed" if raises else "transactions_total rollback": 1,
        "transactions_total rollback": 1 if raises else 2,
    }


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [("COMMIT", "commit"), ("end work;", "commit"), ("ROLLBACK", "rollback"), ("abort transaction", "rollback")],
)
def test_a_transaction_that_a_statement_ends(run: Runner, statement: str, outcome: str) -> None:
    def scenario(engine: Engine) -> None:
        for _ in range(2):
            with engine.connect() as connection:
                connection.execute(ADD)
                connection.exec_driver_sql(statement)
        with engine.connect() as connection:
            expected = 2 if outcome == "commit" else 0
            assert connection.scalar(text("SELECT balance FROM account WHERE id = 1")) == expected

    assert transactions(run(scenario)) == ({"commit": 2, "rollback": 1} if outcome == "commit" else {"rollback": 3})


def test_an_aborted_transaction_that_a_statement_commits(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ADD)
            with pytest.raises(exc.DBAPIError):
                connection.execute(text("SELECT 1 / 0"))
            with pytest.raises(exc.InterfaceError) if run.driver == "pg8000" else nullcontext():
                connection.exec_driver_sql("COMMIT")

    assert transactions(run(scenario)) == {"rollback": 1}


def test_an_error_while_a_cursor_fetches(run: Runner) -> None:
    """SQLAlchemy passes on asyncpg's own exception then."""

    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            statement = text("SELECT 1 / (500 - n) FROM generate_series(1, 1000) n")
            options = {"stream_results": True, "max_row_buffer": 10}
            with pytest.raises(Exception, match="division by zero"):
                connection.execute(statement, execution_options=options).all()

    found = run(scenario)
    assert {name: number for name, number in found.items() if "errors" in name} == {"query_errors_total SELECT 22": 1}


@pytest.mark.parametrize("run", [("sync", "psycopg"), ("async", "asyncpg")], ids="-".join, indirect=True)
def test_a_prepared_statement_that_no_longer_fits(run: Runner, dsn: str) -> None:
    """SQLAlchemy's own exception of asyncpg's has no code."""

    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            for _ in range(8):
                connection.execute(text("SELECT * FROM account")).all()
            connection.commit()
            with psycopg.connect(dsn) as other:
                other.execute("ALTER TABLE account ADD COLUMN extra int")
            with pytest.raises(exc.DBAPIError):
                connection.execute(text("SELECT * FROM account")).all()
            connection.commit()

    found = run(scenario)
    assert {name: number for name, number in found.items() if "transactions" in name or "errors" in name} == {
        "query_errors_total SELECT 0A": 1,
        "transactions_total commit": 1,
        "transactions_total rollback": 1,
    }


def test_a_savepoint_that_a_statement_rolls_back(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ADD)
            connection.exec_driver_sql("SAVEPOINT here")
            with pytest.raises(exc.DBAPIError):
                connection.execute(text("SELECT 1 / 0"))
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT here")
            connection.commit()

    assert run(scenario)["transactions_total commit"] == 1


@REFUSING
def test_an_autocommit_statement_that_was_never_sent_is_no_transaction(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            refused_by_the_driver(connection, run.driver)
            with pytest.raises(exc.DBAPIError):
                connection.execute(text("SELECT 1 / 0"))

    found = run(scenario)
    assert {name: number for name, number in found.items() if "transactions" in name} == {
        "transactions_total rollback": 1
    }
