"""The connection pool: gauges, waits, and everything that goes wrong with connections."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, NullPool, QueuePool, StaticPool, create_engine, event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool

from app.telemetry.database import Instrumentation, instrument_engine, metrics
from tests import servers
from tests.servers import Running, wait_until
from tests.telemetry.database.measured import (
    Runner,
    ended,
    kill_backends,
    new_pool,
    numbers,
    pool_numbers,
    queries,
    seconds,
)

ONE = text("SELECT 1")


def url(dsn: str) -> str:
    return dsn.replace("postgresql:", "postgresql+psycopg:", 1)


def gauges(pool: str) -> dict[str, float]:
    """used, idle, overflow and pending, those that are not 0."""
    found = numbers(pool)
    names = {
        "pool_connections used": "used",
        "pool_connections idle": "idle",
        "pool_overflow": "overflow",
        "pool_pending_checkouts": "pending",
    }
    return {short: found[name] for name, short in names.items() if name in found}


async def until(true: Callable[[], bool]) -> None:
    """As `wait_until`, but while other tasks run."""
    async with asyncio.timeout(240):
        while not true():  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.01)


def test_gauges_start_at_zero(dsn: str) -> None:
    engine = create_engine(url(dsn), pool_size=3, max_overflow=4)
    instrument_engine(engine, pool=(pool := new_pool()))
    assert numbers(pool) == {"pool_connections_max": 7}
    exported = {
        (sample.name, *sample.labels.values())
        for metric in (metrics.POOL_CONNECTIONS, metrics.TRANSACTIONS, metrics.QUERY_DURATION, metrics.QUERY_ERRORS)
        for family in metric.collect()
        for sample in family.samples
        if sample.labels["pool"] == pool
    }
    assert exported >= {
        ("db_pool_connections", pool, "used"),
        ("db_pool_connections", pool, "idle"),
        ("db_transactions_total", pool, "commit_failed"),
        ("db_query_duration_seconds_count", pool, "SELECT", "other"),
        ("db_query_errors_total", pool, "UPDATE", "40"),
    }


def test_gauges_follow_the_connections(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        states = []

        def note() -> None:
            states.append(gauges(run.pool))

        first = engine.connect()
        note()
        second, third = engine.connect(), engine.connect()
        note()
        third.close()  # beyond the pool's size: stays while there is room
        note()
        second.close()
        first.close()
        note()
        assert states == [{"used": 1}, {"used": 3, "overflow": 1}, {"used": 2, "idle": 1, "overflow": 1}, {"idle": 2}]

    expected = pool_numbers(checkouts=3, idle=2, limit=4)
    assert run(scenario, pool_size=2, max_overflow=2) == expected
    assert numbers(run.pool) == {**pool_numbers(checkouts=3, idle=0, limit=4)}  # after dispose()


def test_dispose_with_a_connection_in_use(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as outlasting:
            with engine.connect():
                pass
            assert gauges(run.pool) == {"used": 1, "idle": 1}
            engine.dispose()
            assert gauges(run.pool) == {"used": 1}
            with engine.connect() as connection:
                connection.execute(ONE)
                assert gauges(run.pool) == {"used": 2}
            assert gauges(run.pool) == {"used": 1, "idle": 1}
            outlasting.execute(ONE)
        assert gauges(run.pool) == {"idle": 1}  # the old pool's connection is not the new pool's

    assert run(scenario) == queries(SELECT=2) | ended(rollback=2) | pool_numbers(checkouts=3)


def test_dispose_by_a_view_of_the_engine(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect():
            pass
        engine.execution_options(isolation_level="AUTOCOMMIT").dispose()
        assert gauges(run.pool) == {}
        with engine.connect():
            assert gauges(run.pool) == {"used": 1}

    assert run(scenario) == pool_numbers(checkouts=2)


def test_dispose_in_a_forked_child_forgets_the_parents_connections(dsn: str) -> None:
    engine = create_engine(url(dsn))
    instrument_engine(engine, pool=(pool := new_pool()))
    parents_pool = engine.pool
    with engine.connect():
        pass
    engine.dispose(close=False)
    assert gauges(pool) == {}
    with engine.connect():
        assert gauges(pool) == {"used": 1}
    engine.dispose()
    parents_pool.dispose()
    assert gauges(pool) == {}


def test_a_forked_child_counts_its_own_connections_alone(dsn: str) -> None:
    engine = create_engine(url(dsn))
    instrument_engine(engine, pool=(pool := new_pool()))
    with engine.connect(), engine.connect():
        pass
    assert gauges(pool) == {"idle": 2}
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            engine.dispose(close=False)  # as SQLAlchemy wants it: the connections are the parent's
            with engine.connect() as connection:
                connection.execute(ONE)
                seen = [gauges(pool), numbers(pool)["pool_connections_max"]]
            os.write(writer, json.dumps([*seen, gauges(pool)]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert json.loads(said.read()) == [{"used": 1}, 15, {"idle": 1}]
    os.waitpid(child, 0)
    assert gauges(pool) == {"idle": 2}
    with engine.connect() as connection:  # not closed by the child
        connection.execute(ONE)
    engine.dispose()


@pytest.mark.parametrize("poolclass", [NullPool, StaticPool])
def test_pools_of_other_kinds(run: Runner, poolclass: type[Pool]) -> None:
    def scenario(engine: Engine) -> None:
        for _ in range(2):
            with engine.begin() as connection:
                connection.execute(ONE)
                assert gauges(run.pool) == {"used": 1}

    idle, limit = (0, float("inf")) if poolclass is NullPool else (1, 1)
    expected = queries(SELECT=2) | ended(commit=2) | pool_numbers(checkouts=2, idle=idle, limit=limit)
    assert run(scenario, poolclass=poolclass) == expected


@pytest.mark.parametrize(
    ("options", "limit"),
    [({"pool_size": 0}, float("inf")), ({"max_overflow": -1}, float("inf")), ({"pool_size": 1, "max_overflow": 0}, 1)],
)
def test_limits(dsn: str, options: dict[str, int], limit: float) -> None:
    engine = create_engine(url(dsn), **options)  # held: the gauges forget an engine that is collected
    instrument_engine(engine, pool=(pool := new_pool()))
    assert numbers(pool) == {"pool_connections_max": limit}
    engine.dispose()


def test_limit_of_a_pool_per_thread() -> None:
    engine = create_engine("sqlite://")
    instrument_engine(engine, pool=(pool := new_pool()))
    with engine.begin() as connection:
        connection.execute(ONE)
    assert numbers(pool) == queries(SELECT=1) | ended(commit=1) | pool_numbers(limit=5)
    engine.dispose()


# Waiting


def test_exhausted_pool(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ONE)
            for _ in range(2):
                with pytest.raises(exc.TimeoutError):
                    engine.connect()
        assert gauges(run.pool) == {"idle": 1}

    assert run(scenario, pool_size=1, max_overflow=0, pool_timeout=0.1) == {
        **queries(SELECT=1),
        **ended(rollback=1),
        **pool_numbers(checkouts=1, limit=1),
        "pool_checkout_wait_seconds_count": 3,
        "pool_checkout_timeouts_total": 2,
    }
    timeouts = 2 * (0.1 - 0.001)  # the pool waits by other clocks, which may be a little faster
    assert run.seconds("db_pool_checkout_wait_seconds") >= timeouts
    assert run.seconds("db_pool_connection_use_seconds") >= timeouts


WAIT, USE = "db_pool_checkout_wait_seconds", "db_pool_connection_use_seconds"


def check_waits(pool: str, before: float, waited: list[float]) -> None:
    """8 callers, 2 connections, 0.1 s each: once the first two have theirs, pairs wait 0, 0.1, 0.2, 0.3 s: 1.2 s."""
    assert numbers(pool) == queries(SELECT=10) | ended(rollback=10) | pool_numbers(checkouts=10, idle=2, limit=2)
    # The server sleeps by another clock than ours; the callers' own are around ours.
    assert 12 * (0.1 - 0.001) <= seconds(pool, WAIT) - before <= sum(waited)
    assert seconds(pool, USE) >= 8 * (0.1 - 0.001)
    # With the two that opened the connections, at most 4 waits are below 0.1 s and 6 below 0.2 s.
    at_most = {
        float(sample.labels["le"]): sample.value
        for family in metrics.POOL_WAIT.collect()
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["pool"] == pool
    }
    assert at_most[0.025] <= 4
    assert at_most[0.1] <= 6
    assert at_most[float("inf")] == 10


def test_waits_of_threads(dsn: str) -> None:
    engine = create_engine(url(dsn), pool_size=2, max_overflow=0, pool_timeout=60)
    instrument_engine(engine, pool=(pool := new_pool()))

    def hold() -> float:
        asked = time.perf_counter()
        with engine.connect() as connection:
            waited = time.perf_counter() - asked
            connection.execute(text("SELECT pg_sleep(0.1)"))
        return waited

    with ThreadPoolExecutor(8) as threads:
        with engine.connect() as first, engine.connect() as second:
            first.execute(ONE)
            second.execute(ONE)
            before = seconds(pool, WAIT)
            callers = [threads.submit(hold) for _ in range(8)]
            wait_until(lambda: gauges(pool) == {"used": 2, "pending": 8}, interval=0.01)
        waited = [caller.result() for caller in callers]
    check_waits(pool, before, waited)
    engine.dispose()


async def test_waits_of_tasks(dsn: str) -> None:
    engine = create_async_engine(url(dsn), pool_size=2, max_overflow=0, pool_timeout=60)
    instrument_engine(engine, pool=(pool := new_pool()))
    pending = []

    async def hold() -> float:
        asked = time.perf_counter()
        async with engine.connect() as connection:
            waited = time.perf_counter() - asked
            pending.append(gauges(pool).get("pending", 0))
            await connection.execute(text("SELECT pg_sleep(0.1)"))
        return waited

    async with engine.connect() as first, engine.connect() as second:
        await first.execute(ONE)
        await second.execute(ONE)
        before = seconds(pool, WAIT)
        callers = [asyncio.create_task(hold()) for _ in range(8)]
        await until(lambda: gauges(pool) == {"used": 2, "pending": 8})
    waited = await asyncio.gather(*callers)
    check_waits(pool, before, waited)
    assert pending[-1] == 0
    await engine.dispose()


def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **more: Any) -> Any:
        time.sleep(0.05)
        return function(*arguments, **more)

    return call


def made_by_a_creator(dsn: str) -> Engine:
    return create_engine("postgresql+psycopg://", creator=slowly(lambda: psycopg.connect(dsn)))


def with_a_pool_from_outside(dsn: str) -> Engine:
    return create_engine("postgresql+psycopg://", pool=QueuePool(slowly(lambda: psycopg.connect(dsn))))


def with_a_static_pool(dsn: str) -> Engine:
    creator = slowly(lambda: psycopg.connect(dsn))
    return create_engine("postgresql+psycopg://", creator=creator, poolclass=StaticPool)


def with_a_slow_driver(dsn: str) -> Engine:
    engine = create_engine(url(dsn))
    engine.dialect.connect = slowly(engine.dialect.connect)  # type: ignore[method-assign]
    return engine


def with_a_slow_ping(dsn: str) -> Engine:
    engine = create_engine(url(dsn), pool_pre_ping=True)
    engine.dialect.do_ping = slowly(engine.dialect.do_ping)  # type: ignore[method-assign]
    return engine


def that_reconnects_at_once(dsn: str) -> Engine:
    return create_engine("postgresql+psycopg://", creator=slowly(lambda: psycopg.connect(dsn)), pool_recycle=0)


def with_listeners_that_come_later(dsn: str) -> Engine:
    return create_engine(url(dsn))


@pytest.mark.parametrize(
    "make",
    [
        made_by_a_creator,
        with_a_pool_from_outside,
        with_a_static_pool,
        with_a_slow_driver,
        with_a_slow_ping,
        that_reconnects_at_once,
        with_listeners_that_come_later,
    ],
)
def test_connecting_and_pinging_is_not_waiting(dsn: str, make: Callable[[str], Engine]) -> None:
    """A connection that takes its time to open or to be checked is not the pool's fault, whoever opens it."""
    engine = make(dsn)
    pool = new_pool()
    instrument_engine(engine, pool=pool)
    if make is with_listeners_that_come_later:
        event.listen(engine, "connect", slowly(lambda connection, record: None))
        event.listen(engine, "do_connect", slowly(lambda dialect, record, arguments, parameters: None))
        event.listen(engine, "checkout", slowly(lambda connection, record, proxy: None))
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(ONE)
    assert numbers(pool)["pool_checkout_wait_seconds_count"] == 2
    assert seconds(pool, WAIT) == 0
    engine.dispose()


async def test_connecting_is_not_waiting_for_tasks_either(dsn: str) -> None:
    all_asked = asyncio.Event()

    async def connect() -> Any:
        await all_asked.wait()
        await asyncio.sleep(0.05)
        return await psycopg.AsyncConnection.connect(dsn)

    engine = create_async_engine("postgresql+psycopg://", async_creator=connect)
    instrument_engine(engine, pool=(pool := new_pool()))

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(ONE)

    tasks = [asyncio.create_task(use()) for _ in range(3)]
    await until(lambda: gauges(pool) == {"pending": 3})
    all_asked.set()
    await asyncio.gather(*tasks)
    assert seconds(pool, WAIT) == 0
    await engine.dispose()


async def test_cancelled_while_waiting(dsn: str) -> None:
    engine = create_async_engine(url(dsn), pool_size=1, max_overflow=0)
    instrument_engine(engine, pool=(pool := new_pool()))
    async with engine.connect() as connection:
        await connection.execute(ONE)
        waiting = [asyncio.create_task(engine.connect().start()) for _ in range(3)]
        await until(lambda: gauges(pool) == {"used": 1, "pending": 3})
        began = time.perf_counter()
        await asyncio.sleep(0.05)
        waited = time.perf_counter() - began
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert gauges(pool) == {"used": 1}
    assert numbers(pool) == {
        **queries(SELECT=1),
        **ended(rollback=1),
        **pool_numbers(limit=1),
        "pool_checkout_wait_seconds_count": 4,
    }
    assert seconds(pool, "db_pool_checkout_wait_seconds") >= 3 * waited
    await engine.dispose()


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


# Losing connections


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


def test_a_transaction_that_nobody_ends_is_a_rollback(run: Runner) -> None:
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


def test_raw_connections_are_the_pools_only(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        raw = engine.raw_connection()
        raw.cursor().execute("SELECT 1")
        raw.commit()
        raw.close()

    assert run(scenario) == pool_numbers()


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


# Wiring


def listeners(engine: Engine) -> dict[str, int]:
    counts = {}
    for target in (engine, engine.pool, engine.dialect):
        for name in dir(target.dispatch):
            if not name.startswith("_"):
                counts[f"{type(target).__name__} {name}"] = len(list(getattr(target.dispatch, name, ())))
    return counts


def test_instrumenting_twice_counts_once(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        assert instrument_engine(engine, pool=run.pool, query_names=("second",)) is run.handle
        view = engine.execution_options(query_name="second")
        assert instrument_engine(view, pool=run.pool) is run.handle
        with pytest.raises(ValueError, match=f"already instrumented as pool '{run.pool}'"):
            instrument_engine(engine, pool="another")
        with view.begin() as connection:
            connection.execute(ONE)

    assert run(scenario, ("first",)) == {
        "query_duration_seconds_count SELECT second": 1,
        **ended(commit=1),
        **pool_numbers(),
    }


def test_async_engine_and_its_sync_engine_are_one(dsn: str) -> None:
    engine: AsyncEngine = create_async_engine(url(dsn))
    handle = instrument_engine(engine, pool=(pool := new_pool()))
    assert instrument_engine(engine.sync_engine, pool=pool) is handle


@pytest.mark.parametrize("disposed_before", [False, True])
def test_uninstrument_leaves_no_trace(run: Runner, disposed_before: bool) -> None:
    def scenario(engine: Engine) -> None:
        assert run.handle is not None
        with engine.begin() as connection:
            connection.execute(ONE)
        if disposed_before:
            engine.dispose()
        run.handle.uninstrument()
        assert not [name for name in vars(engine.dialect) if name.startswith("do_")]
        assert "connect" not in vars(engine.pool)
        assert "get" not in vars(engine.pool._pool)  # type: ignore[attr-defined]
        with engine.begin() as connection:
            connection.execute(ONE)
        run.handle.uninstrument()  # does nothing
        again = instrument_engine(engine, pool=run.pool)
        assert again is not run.handle
        with engine.begin() as connection:
            connection.execute(ONE)
        again.uninstrument()
        engine.dispose()

    untouched = create_engine(url(run.dsn))
    expected = queries(SELECT=2) | ended(commit=2) | pool_numbers(checkouts=2, idle=0)
    del expected["pool_connections_max"]
    assert run(scenario) == expected
    assert untouched.pool.__dict__.keys() == create_engine(url(run.dsn)).pool.__dict__.keys()


def test_a_new_handle_knows_nothing_of_the_old_ones_transactions(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        assert run.handle is not None
        with engine.connect() as connection:
            connection.execute(ONE)
            run.handle.uninstrument()
            connection.commit()
            again = instrument_engine(engine, pool=run.pool)
            with connection.begin():
                pass  # without a statement
            connection.execute(ONE)
            connection.commit()
        again.uninstrument()

    assert run(scenario)["query_duration_seconds_count SELECT other"] == 2
    assert {name: number for name, number in numbers(run.pool).items() if "transactions" in name} == {
        "transactions_total commit": 1
    }


def test_nothing_listens_to_the_engine(dsn: str) -> None:
    """One listener there would make every statement dearer than all of the measuring does."""
    engine = create_engine(url(dsn))
    instrument_engine(engine, pool=new_pool())
    assert not engine._has_events


def test_uninstrument_removes_every_listener(dsn: str) -> None:
    engine = create_engine(url(dsn))
    before = listeners(engine)
    handle = instrument_engine(engine, pool=new_pool())
    assert listeners(engine) != before
    engine.dispose()
    handle.uninstrument()
    assert listeners(engine) == before


def test_uninstrument_puts_back_what_others_had_put_there() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.do_execute = others = functools.partial(engine.dialect.do_execute)  # type: ignore[method-assign]
    handle = instrument_engine(engine, pool=new_pool())
    assert engine.dialect.do_execute is not others
    handle.uninstrument()
    assert engine.dialect.do_execute is others


def test_mistakes_are_refused() -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(TypeError, match=r"query_names is a list of names: \('greeting',\)"):
        instrument_engine(engine, query_names="greeting")
    assert not [name for name in vars(engine.dialect) if name.startswith("do_")]
    with pytest.raises(TypeError, match="Engine or AsyncEngine, not a str"):
        instrument_engine("sqlite://")  # type: ignore[arg-type]
    handle = instrument_engine(engine, pool=new_pool())
    with pytest.raises(TypeError, match="query_names"):
        handle.allow("greeting")


def test_engines_of_one_name_add_up_and_dead_ones_do_not_count(dsn: str) -> None:
    pool = new_pool()
    first, second = create_engine(url(dsn), pool_size=1), create_engine(url(dsn), pool_size=2)
    for engine in (first, second):
        instrument_engine(engine, pool=pool)
    with first.connect(), second.connect():
        assert gauges(pool) == {"used": 2}
        assert numbers(pool)["pool_connections_max"] == 23
    second.dispose()
    del engine, second
    gc.collect()
    with first.connect():
        assert gauges(pool) == {"used": 1}
    assert numbers(pool)["pool_connections_max"] == 11
    first.dispose()


def test_connections_from_before_are_taken_over(dsn: str) -> None:
    engine = create_engine(url(dsn))
    with engine.connect() as open_already:
        open_already.execute(ONE)
        instrument_engine(engine, pool=(pool := new_pool()))
        open_already.execute(ONE)
        open_already.commit()
    with engine.connect():
        assert gauges(pool) == {"used": 1}
    assert numbers(pool) == queries(SELECT=1) | ended(commit=1) | pool_numbers()
    engine.dispose()


def test_a_forgotten_connection_comes_back_with_the_garbage(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(url(dsn))
    handle: Instrumentation = instrument_engine(engine, pool=(pool := new_pool()))
    raw: Any = engine.raw_connection()
    assert gauges(pool) == {"used": 1}

    connections = handle._metrics.connections
    gauge = connections._max

    def forget(limit: float) -> None:
        """What a garbage collection does at the worst moment: while the gauges are being set."""
        nonlocal raw
        raw = None
        gc.collect()
        gauge.set(limit)

    monkeypatch.setattr(connections, "_max", SimpleNamespace(set=forget))
    connections.changed()
    assert gauges(pool) == {"idle": 1}
    engine.dispose()


def test_gauges_are_right_under_threads(dsn: str) -> None:
    engine = create_engine(url(dsn), pool_size=3, max_overflow=5)
    instrument_engine(engine, pool=(pool := new_pool()))

    def work() -> None:
        for _ in range(50):
            with engine.begin() as connection:
                connection.execute(ONE)

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(work) for _ in range(8)]:
            future.result()
    found = numbers(pool)
    assert found.pop("pool_connections idle") in {1, 2, 3}
    assert found == queries(SELECT=400) | ended(commit=400) | pool_numbers(checkouts=400, idle=0, limit=8)
    engine.dispose()
    assert gauges(pool) == {}
