"""The pool's gauges: connections in use, idle and allowed, whatever becomes of engines, threads and forks."""

from __future__ import annotations

import gc
import json
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, StaticPool, create_engine
from sqlalchemy.pool import Pool

from app.telemetry.database import Instrumentation, instrument_engine, metrics
from tests.telemetry.database.measured import ONE, Runner, ended, gauges, new_pool, numbers, pool_numbers, queries, url


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


def test_raw_connections_are_the_pools_only(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        raw = engine.raw_connection()
        raw.cursor().execute("SELECT 1")
        raw.commit()
        raw.close()

    assert run(scenario) == pool_numbers()


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
