"""Behind a real PgBouncer in transaction mode, with a single connection to the server that all transactions share."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import Engine, exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.telemetry.database import instrument_engine
from app.telemetry.database.driver_pools import instrument_pool
from ops import packages, servers
from ops import postgres as native_postgres
from ops.paths import HOME
from tests.running import Running, folder, start, wait_until
from tests.servers import Postgres
from tests.telemetry.database.measured import Runner, ended, new_pool, numbers, pool_numbers, queries

ADD = text("UPDATE account SET balance = balance + 1 WHERE id = 1")
ONE = text("SELECT 1")
WAIT = 2  # seconds, PgBouncer's query_wait_timeout

# Statements that are prepared on one server connection are not there on the next.
OPTIONS: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
    "asyncpg": {"prepared_statement_name_func": lambda: "", "statement_cache_size": 0},
}


def program() -> tuple[str, ...]:
    """The machine's PgBouncer or, on Debian, the package's, unpacked as `make up` does with servers."""
    installed = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if installed:
        return (installed,)
    assert packages.release()[0], "pgbouncer is missing: install it and put it on PATH"
    with packages.lock():
        root = HOME / "packages" / "pgbouncer"
        if not root.exists():
            apt = packages.Apt(packages.release()[1])
            packages.place("pgbouncer", apt.download(apt.dependencies("pgbouncer")))
    libraries = ":".join(str(path) for path in (root / "usr/lib").glob("*-linux-*"))
    return ("env", f"LD_LIBRARY_PATH={libraries}", str(root / "usr/sbin/pgbouncer"))


def pgbouncer(port: int, path: Path, postgres: Postgres) -> servers.Server:
    (path / "users").write_text(f'"{postgres.user}" "{postgres.password}"\n')
    (path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={postgres.host} port={postgres.port}\n[pgbouncer]\n"
        f"listen_addr = {servers.HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {path}/users\npool_mode = transaction\ndefault_pool_size = 1\n"
        f"query_wait_timeout = {WAIT}\nignore_startup_parameters = extra_float_digits\n"
    )
    native_postgres.own(path)

    def probe() -> str | None:
        try:
            with psycopg.connect(f"{postgres.dsn().rpartition('@')[0]}@{servers.HOST}:{port}/sightline"):
                return None
        except psycopg.Error as error:
            return str(error)

    command = native_postgres.as_owner(*program(), str(path / "pgbouncer.ini"))
    return servers.Server("pgbouncer", port, command, probe)


@pytest.fixture(scope="module")
def bouncer(quiet_postgres: Postgres) -> Iterator[Running]:
    with folder("pgbouncer") as path:
        running = start(lambda port: pgbouncer(port, path, quiet_postgres), path)
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def through(bouncer: Running, dsn: str) -> str:
    """The database with ten accounts, through PgBouncer."""
    server, _, name = dsn.rpartition("/")
    return f"{server.rpartition(':')[0]}:{bouncer.port}/{name}"


@pytest.fixture(
    params=[("sync", "psycopg"), ("sync", "psycopg2"), ("async", "psycopg"), ("async", "asyncpg")], ids="-".join
)
def run(request: pytest.FixtureRequest, through: str) -> Runner:
    kind, driver = request.param
    return Runner(kind, through, driver=driver)


def counted(run: Runner, scenario: Callable[[Engine], Any]) -> dict[str, float]:
    return run(scenario, connect_args=OPTIONS[run.driver])


def test_every_end_of_a_transaction(run: Runner) -> None:
    """PostgreSQL's session is another one's in between; what a transaction was is known all the same."""

    def scenario(engine: Engine) -> None:
        for _ in range(3):
            with engine.begin() as connection:
                connection.execute(ADD)
                connection.execute(ONE)
        with engine.connect() as connection:
            connection.execute(ADD)
        with engine.connect() as connection, pytest.raises(exc.DBAPIError):
            connection.execute(text("SELECT 1 / 0"))

    assert counted(run, scenario) == {
        **queries(SELECT=4, UPDATE=4),
        "query_errors_total SELECT 22": 1,
        **ended(commit=3, rollback=2),
        **pool_numbers(checkouts=5),
    }


def test_what_waits_for_the_server_connection(run: Runner) -> None:
    """It is the query that waits, and the pool's connections are there at once; too long a wait is an error 08."""

    def scenario(engine: Engine) -> None:
        with psycopg.connect(run.dsn, prepare_threshold=None) as other, engine.connect() as connection:
            connection.execute(ONE)
            connection.commit()
            other.execute("SELECT 1")  # holds the server connection until the end
            with pytest.raises(exc.DBAPIError):
                connection.execute(ONE)

    found = counted(run, scenario)
    assert found.pop("pool_invalidations_total error") == 1
    assert found == {
        **queries(SELECT=2),
        "query_errors_total SELECT 08": 1,
        **ended(commit=1, rollback=1),
        **pool_numbers(idle=0),
    }
    assert run.seconds("db_query_duration_seconds") >= WAIT > run.seconds("db_pool_checkout_wait_seconds")


def test_many_clients_of_one_server_connection(through: str) -> None:
    run = Runner("sync", through)

    def scenario(engine: Engine) -> None:
        def work(_: int) -> None:
            with engine.begin() as connection:
                connection.execute(ADD)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(80)))

    found = counted(run, scenario)
    assert {key: number for key, number in found.items() if not key.startswith("pool_")} == {
        **queries(UPDATE=80),
        **ended(commit=80),
    }
    with psycopg.connect(through) as connection:
        assert connection.execute("SELECT balance FROM account WHERE id = 1").fetchone() == (80,)


async def test_cancelled(through: str, dsn: str) -> None:
    """The cancellation goes through PgBouncer too; the connection serves the next one."""
    name = new_pool()
    engine = create_async_engine(
        through.replace("postgresql://", "postgresql+asyncpg://"), connect_args=OPTIONS["asyncpg"], pool_size=1
    )
    instrument_engine(engine, pool=name)

    async def sleep() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    def asleep() -> bool:
        with psycopg.connect(dsn) as connection:
            found = connection.execute(
                "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
            )
            return found.fetchone() is not None

    task = asyncio.create_task(sleep())
    await asyncio.to_thread(wait_until, asleep)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with engine.begin() as connection:
        await connection.execute(ADD)
    await asyncio.to_thread(wait_until, lambda: numbers(name).get("pool_connections idle") == 1)
    found = numbers(name)
    assert found["transactions_total rollback"] == found["transactions_total commit"] == 1
    assert not [key for key in found if "errors" in key]
    await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_pools_without_sqlalchemy(through: str, driver: str) -> None:
    name = new_pool()
    if driver == "psycopg":
        opened: Any = AsyncConnectionPool(through, min_size=1, open=False, kwargs={"prepare_threshold": None})
        await opened.open(wait=True)
        take = instrument_pool(opened, name).connection
    else:
        opened = await asyncpg.create_pool(through, min_size=1, statement_cache_size=0)
        take = instrument_pool(opened, name).acquire
    async with take() as connection, connection.transaction():
        await connection.execute("UPDATE account SET balance = 7 WHERE id = 1")
    with psycopg.connect(through, prepare_threshold=None) as other:
        other.execute("SELECT 1")
        with pytest.raises((psycopg.Error, asyncpg.PostgresError)):
            async with take() as connection:
                await connection.execute("SELECT 1")
    found = numbers(name)
    assert found["query_duration_seconds_count UPDATE other"] == 1
    assert found["query_errors_total SELECT 08"] == 1
    assert [key for key in found if "errors" in key] == ["query_errors_total SELECT 08"]
    await opened.close()
