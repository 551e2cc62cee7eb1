"""Run a scenario on an instrumented engine, sync or async, and read every number it left."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from prometheus_client.metrics import MetricWrapperBase
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.telemetry.database import Instrumentation, instrument_engine, metrics
from tests.running import wait_until
from tests.servers import Postgres

T = TypeVar("T")
Numbers = dict[str, float]
METRICS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
ONE = text("SELECT 1")
ADD = text("UPDATE account SET balance = balance + 1 WHERE id = :id")
_names = (f"test_{number}" for number in itertools.count())


def url(dsn: str) -> str:
    """For an engine with psycopg."""
    return dsn.replace("postgresql:", "postgresql+psycopg:", 1)


def new_pool() -> str:
    """A pool name that no test has used, so that its numbers begin at 0."""
    return next(_names)


def numbers(pool: str) -> Numbers:
    """Every series of a pool that is not 0, without times and buckets, as `metric label label` without `db_`."""
    found = {}
    for metric in METRICS:
        for family in metric.collect():
            for sample in family.samples:
                if sample.labels.get("pool") == pool and not sample.name.endswith(("_bucket", "_sum", "_created")):
                    labels = [value for name, value in sample.labels.items() if name != "pool"]
                    found[" ".join([sample.name.removeprefix("db_"), *labels])] = sample.value
    return {name: value for name, value in sorted(found.items()) if value}


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


def seconds(pool: str, metric: str) -> float:
    """The sum of a histogram over its label values."""
    collector = next(candidate for candidate in METRICS if next(iter(candidate.describe())).name == metric)
    return sum(
        sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == f"{metric}_sum" and sample.labels["pool"] == pool
    )


def pool_numbers(*, checkouts: int = 1, idle: int = 1, limit: float = 15) -> Numbers:
    """What the pool's metrics say when everything has been given back."""
    expected = {
        "pool_checkout_wait_seconds_count": checkouts,
        "pool_connection_use_seconds_count": checkouts,
        "pool_connections idle": idle,
        "pool_connections_max": limit,
    }
    return {name: value for name, value in expected.items() if value}


def ended(*, commit: int = 0, rollback: int = 0, commit_failed: int = 0) -> Numbers:
    """Transactions that ended; each COMMIT is timed."""
    expected = {
        "transactions_total commit": commit,
        "transactions_total rollback": rollback,
        "transactions_total commit_failed": commit_failed,
        "commit_duration_seconds_count": commit + commit_failed,
    }
    return {name: value for name, value in expected.items() if value}


def queries(**operations: int) -> Numbers:
    """Statements without a name of their own."""
    return {f"query_duration_seconds_count {operation} other": count for operation, count in operations.items()}


def kill_backends(dsn: str) -> None:
    """End the role's other connections to the database from the server's side, and see them gone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )


@dataclass
class Runner:
    """Runs scenarios written against a sync Engine; `async` runs them on the engine inside an AsyncEngine."""

    kind: str
    dsn: str
    postgres: Postgres | None = None  # to compare with, where nothing but the scenario uses the database
    driver: str = "psycopg"
    pool: str = ""
    handle: Instrumentation | None = field(default=None, repr=False)
    server: dict[str, int] = field(default_factory=dict)  # what PostgreSQL counted meanwhile

    def __call__(self, scenario: Callable[[Engine], Any], query_names: Iterable[str] = (), **options: Any) -> Numbers:
        """Run the scenario on a new engine and return the pool's numbers from before the engine is disposed of."""
        self.pool = new_pool()
        before = self._server_counts()
        url = self.dsn.replace("postgresql://", f"postgresql+{self.driver}://", 1)
        if self.kind == "sync":
            result = self._run_sync(url, scenario, query_names, options)
        else:
            result = asyncio.run(self._run_async(url, scenario, query_names, options))
        self.server = {name: count - before[name] for name, count in self._server_counts().items()}
        return result

    def _server_counts(self) -> dict[str, int]:
        """PostgreSQL's own counts, complete once every client has gone."""
        if self.postgres is None:
            return {}
        name = self.dsn.rpartition("/")[2]
        with psycopg.connect(self.postgres.superuser_dsn, autocommit=True) as connection:

            def counts() -> dict[str, int] | None:
                row = connection.execute(
                    "SELECT numbackends, xact_commit, xact_rollback FROM pg_stat_database WHERE datname = %s",
                    [name],
                ).fetchone()
                assert row is not None
                return {"commit": row[1], "rollback": row[2]} if row[0] == 0 else None

            return wait_until(counts, interval=0.02) or {}

    def seconds(self, metric: str) -> float:
        return seconds(self.pool, metric)

    def _run_sync(self, url: str, scenario: Callable[[Engine], Any], names: Iterable[str], options: Any) -> Numbers:
        engine = create_engine(url, **options)
        self.handle = instrument_engine(engine, pool=self.pool, query_names=names)
        try:
            scenario(engine)
            return numbers(self.pool)
        finally:
            engine.dispose()

    async def _run_async(
        self, url: str, scenario: Callable[[Engine], Any], names: Iterable[str], options: Any
    ) -> Numbers:
        engine = create_async_engine(url, **options)
        self.handle = instrument_engine(engine, pool=self.pool, query_names=names)
        try:
            # A session takes no connection before it needs one; run_sync is SQLAlchemy's bridge to the sync API.
            async with AsyncSession(engine) as session:
                await session.run_sync(lambda _: scenario(engine.sync_engine))
            return numbers(self.pool)
        finally:
            await engine.dispose()
