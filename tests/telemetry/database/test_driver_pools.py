"""The pools of psycopg_pool and asyncpg, without SQLAlchemy, on a real PostgreSQL."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from psycopg import sql
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from app.telemetry.database.driver_pools import instrument_pool, query_name
from tests.running import wait_until
from tests.telemetry.database.measured import kill_backends, new_pool, numbers
from tests.telemetry.serving import ROOT


@pytest.fixture(params=["psycopg", "asyncpg"])
async def pool(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[tuple[str, Any]]:
    """(name, pool) of two connections at most, one of which is open."""
    name = new_pool()
    if request.param == "psycopg":
        async with AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False) as opened:
            await opened.wait()
            yield name, instrument_pool(opened, name, query_names=("one",))
    else:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as created:
            yield name, instrument_pool(created, name, query_names=("one",))


def taken(pool: Any) -> Any:
    return pool.connection() if isinstance(pool, AsyncConnectionPool) else pool.acquire()


async def test_queries_by_name(pool: tuple[str, Any]) -> None:
    name, connections = pool
    async with taken(connections) as connection:
        with query_name("one"):
            await connection.execute("SELECT 1")
        with query_name("not allowed"):
            await connection.execute("UPDATE account SET balance = 1 WHERE id = 1")
        await connection.execute("DELETE FROM account WHERE id = 2")
        assert numbers(name)["pool_connections used"] == 1
    assert numbers(name) == {
        "query_duration_seconds_count SELECT one": 1,
        "query_duration_seconds_count UPDATE other": 1,
        "query_duration_seconds_count DELETE other": 1,
        "pool_checkout_wait_seconds_count": 1,
        "pool_connection_use_seconds_count": 1,
        "pool_connections idle": 1,
        "pool_connections_max": 2,
    }


async def test_errors(pool: tuple[str, Any], dsn: str) -> None:
    name, connections = pool
    for statement in ("SELECT 1 / 0", "INSERT INTO account (id) VALUES (1)"):
        with pytest.raises((psycopg.Error, asyncpg.PostgresError)):
            async with taken(connections) as connection:
                await connection.execute(statement)
    found = {key: number for key, number in numbers(name).items() if "errors" in key}
    assert found == {"query_errors_total SELECT 22": 1, "query_errors_total INSERT 23": 1}


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 20])
async def test_a_connection_that_is_lost(pool: tuple[str, Any], dsn: str, steps: int) -> None:
    """One error, however far the event loop has come with what the server sent: its farewell, then the end."""
    name, connections = pool
    lost = psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
    async with taken(connections) as connection:
        await connection.execute("SELECT 1")
        kill_backends(dsn)
        for _ in range(steps):
            await asyncio.sleep(0)
        with pytest.raises(lost):
            await connection.execute("SELECT 1")
    found = numbers(name)
    assert found["query_errors_total SELECT 08"] == 1
    assert found["query_duration_seconds_count SELECT other"] == 2
    assert [key for key in found if "errors" in key] == ["query_errors_total SELECT 08"]


async def test_a_connection_that_is_lost_while_a_query_runs(pool: tuple[str, Any], dsn: str) -> None:
    name, connections = pool
    async with taken(connections) as connection:
        query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        with psycopg.connect(dsn, autocommit=True) as other:
            running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active'"
            await asyncio.to_thread(
                wait_until, lambda: other.execute(running, ["SELECT pg_sleep%"]).fetchone() == (1,), interval=0.02
            )
        await asyncio.to_thread(kill_backends, dsn)
        with pytest.raises((psycopg.Error, asyncpg.PostgresError)):
            await query
    assert numbers(name)["query_errors_total SELECT 08"] == 1


async def test_every_way_to_run_a_query_of_asyncpg(dsn: str) -> None:
    name = new_pool()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as created:
        connections = instrument_pool(created, name)
        async with connections.acquire() as connection:
            await connection.fetch(query="SELECT 1")
            await connection.fetchrow("SELECT $1::int", 1)
            await connection.fetchval("SELECT 1")
            await connection.execute("SELECT $1::int", 1)
            await connection.executemany(command="UPDATE account SET balance = $1", args=[(1,), (2,)])
            await connection.fetchmany("UPDATE account SET balance = $1 RETURNING id", [(1,), (2,)])
            async with connection.transaction():
                assert isinstance(connection, asyncpg.pool.PoolConnectionProxy)
        await connections.fetch("SELECT 1")
        with pytest.raises(asyncpg.InterfaceError, match="released back"):
            await connection.execute("SELECT 1")  # a mistake, and no connection that was lost
        found = numbers(name)
        assert {key: value for key, value in found.items() if "query" in key} == {
            "query_duration_seconds_count SELECT other": 5,
            "query_duration_seconds_count UPDATE other": 2,
            "query_duration_seconds_count OTHER other": 2,  # BEGIN and COMMIT
        }


async def test_waits(pool: tuple[str, Any]) -> None:
    name, connections = pool
    holding = asyncio.Event()

    async def hold() -> None:
        async with taken(connections):
            await holding.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(5)]
    await asyncio.to_thread(wait_until, lambda: numbers(name).get("pool_connections used") == 2)
    assert numbers(name)["pool_pending_checkouts"] == 3
    holding.set()
    await asyncio.gather(*tasks)
    found = numbers(name)
    assert "pool_pending_checkouts" not in found
    assert found["pool_checkout_wait_seconds_count"] == found["pool_connection_use_seconds_count"] == 5
    assert found["pool_connections idle"] == 2


async def test_timeouts(pool: tuple[str, Any]) -> None:
    name, connections = pool
    take = connections.getconn if isinstance(connections, AsyncConnectionPool) else connections.acquire
    async with taken(connections), taken(connections):
        with pytest.raises((PoolTimeout, TimeoutError)):
            await take(timeout=0.05)
    assert numbers(name)["pool_checkout_timeouts_total"] == 1
    assert "pool_pending_checkouts" not in numbers(name)


async def test_the_guides_lines(dsn: str) -> None:
    guide = (ROOT / "docs" / "adopt.md").read_text()
    [lines] = re.findall(r"^## Pools without SQLAlchemy$.*?^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    names = {"asyncpg": asyncpg, "dsn": dsn}
    await eval(compile(lines, "adopt.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert numbers("main")["query_duration_seconds_count SELECT greeting"] == 1
    await names["pool"].close()


def test_threads(dsn: str) -> None:
    name = new_pool()
    with ConnectionPool(dsn, min_size=1, max_size=2) as opened:
        connections = instrument_pool(opened, name, query_names=("composed",))
        assert instrument_pool(connections, name) is connections

        def work(number: int) -> None:
            with connections.connection() as connection, query_name("composed"):
                connection.execute(sql.SQL("SELECT {}").format(number))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(100)))
        found = numbers(name)
        assert found["query_duration_seconds_count SELECT composed"] == 100
        assert found["pool_checkout_wait_seconds_count"] == found["pool_connection_use_seconds_count"] == 100
        assert "pool_pending_checkouts" not in found


def test_mistakes_are_refused(dsn: str) -> None:
    with pytest.raises(TypeError, match="a pool of psycopg_pool or asyncpg, not a str"):
        instrument_pool(dsn)
    with ConnectionPool(dsn, min_size=1) as opened, pytest.raises(TypeError, match=r"list of names.* \('one',\)"):
        instrument_pool(opened, new_pool(), query_names="one")
