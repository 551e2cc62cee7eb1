"""Waiting for the pool: how long callers wait, and that opening or checking a connection is not waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, QueuePool, StaticPool, create_engine, event, exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.telemetry.database import instrument_engine, metrics
from tests.running import wait_until
from tests.telemetry.database.measured import (
    ONE,
    Runner,
    ended,
    gauges,
    new_pool,
    numbers,
    pool_numbers,
    queries,
    seconds,
    url,
)


async def until(true: Callable[[], bool]) -> None:
    """As `wait_until`, but while other tasks run."""
    async with asyncio.timeout(240):
        while not true():  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.01)


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
    """A connection that takes its time to open or to be checked does not count as a wait for the pool."""
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
