"""Connections that are killed, cancelled, invalidated, detached, forgotten or refused, and their transactions."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.telemetry.database import instrument_engine
from tests import servers
from tests.running import Running
from tests.telemetry.database.measured import (
    ONE,
    Runner,
    ended,
    gauges,
    kill_backends,
    new_pool,
    numbers,
    pool_numbers,
    queries,
    url,
)


def test_killed_in_use(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ONE)
            kill_backends(run.dsn)
            with pytest.raises(exc.OperationalError):
                connection.execute(ONE)
            connection.rollback()
            connection.execute(ONE)  # on a new connection

    assert run(scenario) == {
        **queries(SELECT=3),
        "query_errors_total SELECT 08": 1,
        **ended(rollback=2),
        **pool_numbers(checkouts=2),
        "pool_invalidations_total error": 1,
    }


def test_killed_while_idle_is_found_by_the_ping(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        for _ in range(2):
            with engine.begin() as connection:
                connection.execute(ONE)
            kill_backends(run.dsn)
        with engine.begin() as connection:
            connection.execute(ONE)

    assert run(scenario, pool_pre_ping=True) == {
        **queries(SELECT=3),
        **ended(commit=3),
        **pool_numbers(checkouts=3),
        "pool_invalidations_total ping": 2,
    }


def test_killed_before_the_commit(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        connection = engine.connect()
        connection.execute(text("UPDATE account SET balance = 1"))
        kill_backends(run.dsn)
        with pytest.raises(exc.OperationalError):
            connection.commit()
        connection.rollback()
        connection.close()

    assert run(scenario) == {
        **queries(UPDATE=1),
        "query_errors_total COMMIT 08": 1,
        **ended(commit_failed=1),
        **pool_numbers(idle=0),
        "pool_invalidations_total error": 1,
    }


def test_killed_before_the_rollback(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        connection = engine.connect()
        connection.execute(text("UPDATE account SET balance = 1"))
        kill_backends(run.dsn)
        with pytest.raises(exc.OperationalError):
            connection.rollback()
        connection.close()

    assert run(scenario) == {
        **queries(UPDATE=1),
        "query_errors_total ROLLBACK 08": 1,
        **ended(rollback=1),
        **pool_numbers(idle=0),
        "pool_invalidations_total error": 1,
    }


def test_invalidated_and_detached_by_hand(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.invalidate()
            assert gauges(run.pool) == {}
        raw = engine.raw_connection()
        raw.invalidate(soft=True)
        raw.close()
        assert gauges(run.pool) == {"idle": 1}  # replaced when it is taken next
        with engine.connect() as connection:
            connection.detach()
            assert gauges(run.pool) == {}
            connection.execute(ONE)
            connection.commit()

    assert run(scenario) == {
        **queries(SELECT=1),
        **ended(commit=1),
        **pool_numbers(checkouts=3, idle=0),
        "pool_invalidations_total manual": 1,
        "pool_invalidations_total soft": 1,
    }


def test_killed_when_detached(run: Runner) -> None:
    """A pool is not notified when a connection that has left it ends."""

    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.detach()
            connection.execute(ONE)
            kill_backends(run.dsn)
            with pytest.raises(exc.OperationalError):
                connection.execute(ONE)

    assert run(scenario) == {
        **queries(SELECT=2),
        "query_errors_total SELECT 08": 1,
        **ended(rollback=1),
        **pool_numbers(idle=0),
    }


def test_an_unfinished_transaction_is_a_rollback(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        connection = engine.connect()
        connection.execute(ONE)
        connection.invalidate()  # and never asked to roll back
        del connection
        gc.collect()

    assert run(scenario) == {
        **queries(SELECT=1),
        **ended(rollback=1),
        **pool_numbers(idle=0),
        "pool_invalidations_total manual": 1,
    }


def test_a_forgotten_transaction_is_a_rollback(dsn: str) -> None:
    engine = create_engine(url(dsn))
    instrument_engine(engine, pool=(pool := new_pool()))
    engine.connect().execute(ONE)
    gc.collect()  # gives the connection back
    assert numbers(pool) == queries(SELECT=1) | ended(rollback=1) | pool_numbers()
    engine.dispose()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_server_killed_and_restarted(kind: str) -> None:
    with servers.postgres() as postgres, ExitStack() as restarted:
        run = Runner(kind, postgres.dsn())

        def scenario(engine: Engine) -> None:
            with engine.begin() as connection:
                connection.execute(ONE)
            postgres.running.stop(signal.SIGQUIT)  # at once, without a word to its clients
            for _ in range(2):
                with pytest.raises(exc.OperationalError):
                    engine.connect()
            assert gauges(run.pool) == {}
            again = Running(postgres.running.server, postgres.running.log_file)
            restarted.callback(again.stop, signal.SIGINT)
            again.wait()
            with engine.begin() as connection:
                connection.execute(ONE)

        assert run(scenario, pool_pre_ping=True) == {
            **queries(SELECT=2),
            "query_errors_total CONNECT 08": 2,
            **ended(commit=2),
            **pool_numbers(checkouts=2),
            "pool_checkout_wait_seconds_count": 4,
            "pool_invalidations_total ping": 1,
        }


def test_wrong_password(run: Runner) -> None:
    run.dsn = run.dsn.replace("sightline:", "sightline:wrong", 1)

    def scenario(engine: Engine) -> None:
        with pytest.raises(exc.OperationalError):
            engine.connect()

    result = run(scenario)
    assert result == {
        "query_errors_total CONNECT 08": 1,
        "pool_checkout_wait_seconds_count": 1,
        "pool_connections_max": 15,
    }


async def test_cancelled_while_the_query_runs(dsn: str) -> None:
    engine = create_async_engine(url(dsn))
    instrument_engine(engine, pool=(pool := new_pool()))

    async def sleep() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(sleep())
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        asleep = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        async with asyncio.timeout(240):
            while not await (await other.execute(asleep)).fetchone():  # noqa: ASYNC110  only the server knows
                await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert numbers(pool) == {
        **queries(SELECT=1),
        **ended(rollback=1),
        **pool_numbers(idle=0),
        "pool_invalidations_total cancelled": 1,
    }
    await engine.dispose()
