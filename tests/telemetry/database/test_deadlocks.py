"""Deadlocks: one transaction of two is the victim, and both are counted for what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import create_engine, exc
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.telemetry.database import instrument_engine
from tests.telemetry.database.measured import ADD, Numbers, new_pool, numbers, pool_numbers, queries


def deadlock_numbers() -> Numbers:
    return {
        **queries(UPDATE=4),
        "query_errors_total UPDATE 40": 1,
        "transactions_total commit": 1,
        "transactions_total rollback": 1,
        "commit_duration_seconds_count": 2,  # PostgreSQL answers the victim's COMMIT with ROLLBACK
        **pool_numbers(checkouts=2, idle=2),
    }


def test_deadlock_of_threads(dsn: str) -> None:
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))
    instrument_engine(engine, pool=(pool := new_pool()))
    with engine.connect() as first, engine.connect() as second, ThreadPoolExecutor(1) as thread:
        first.execute(ADD, {"id": 1})
        second.execute(ADD, {"id": 2})
        other = thread.submit(first.execute, ADD, {"id": 2})
        errors = [error for error in (_error(lambda: second.execute(ADD, {"id": 1})), other.exception()) if error]
        first.commit()
        second.commit()
    assert [type(error) for error in errors] == [exc.OperationalError]
    assert numbers(pool) == deadlock_numbers()
    engine.dispose()


async def test_deadlock_of_tasks(dsn: str) -> None:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))
    instrument_engine(engine, pool=(pool := new_pool()))

    async def add(connection: AsyncConnection, id_: int) -> None:
        await connection.execute(ADD, {"id": id_})

    async with engine.connect() as first, engine.connect() as second:
        await add(first, 1)
        await add(second, 2)
        results = await asyncio.gather(add(first, 2), add(second, 1), return_exceptions=True)
        await first.commit()
        await second.commit()
    assert [type(error) for error in results if error] == [exc.OperationalError]
    assert numbers(pool) == deadlock_numbers()
    await engine.dispose()


def _error(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except exc.DBAPIError as error:
        return error
    return None
