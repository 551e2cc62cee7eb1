"""instrument_engine and uninstrument: measured once, removed without a trace, refused where misused."""

from __future__ import annotations

import functools

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.telemetry.database import instrument_engine
from tests.telemetry.database.measured import ONE, Runner, ended, new_pool, numbers, pool_numbers, queries, url


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


def test_a_new_handle_does_not_see_the_old_ones_transactions(run: Runner) -> None:
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
    with pytest.raises(TypeError, match=r"query_names must be a list of names, such as \('greeting',\)"):
        instrument_engine(engine, query_names="greeting")
    assert not [name for name in vars(engine.dialect) if name.startswith("do_")]
    with pytest.raises(TypeError, match="Engine or AsyncEngine, not a str"):
        instrument_engine("sqlite://")  # type: ignore[arg-type]
    handle = instrument_engine(engine, pool=new_pool())
    with pytest.raises(TypeError, match="query_names"):
        handle.allow("greeting")
