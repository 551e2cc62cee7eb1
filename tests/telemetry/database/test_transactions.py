"""Transactions: how each one ends, for the application and for PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, exc, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import Session

from app.telemetry.database import OUTCOMES, instrument_engine
from tests.servers import Postgres
from tests.telemetry.database.measured import ADD, Runner, ended, numbers, pool_numbers, queries

ORPHAN = text("INSERT INTO account (id, owner) VALUES (100, 1)")  # refused by the deferred foreign key, at COMMIT


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, dsn: str, quiet_postgres: Postgres) -> Runner:
    return Runner(request.param, dsn, quiet_postgres)


def agrees(
    run: Runner, *, connections: int = 1, second_phases: int = 0, unseen_commits: int = 0, unseen_rollbacks: int = 0
) -> bool:
    """PostgreSQL counted what the application counted, and what app/telemetry/database says comes on top."""
    ours = {outcome: numbers(run.pool).get(f"transactions_total {outcome}", 0) for outcome in OUTCOMES}
    return run.server == {
        "commit": ours["commit"] + connections + second_phases + unseen_commits,
        "rollback": ours["rollback"] + ours["commit_failed"] + 1 + unseen_rollbacks,
    }


def test_a_session_that_only_reads_is_a_rollback(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with Session(engine) as session:
            session.execute(text("SELECT 1"))

    assert run(scenario) == queries(SELECT=1) | ended(rollback=1) | pool_numbers()
    assert agrees(run)


def test_begin_without_a_statement_is_no_transaction(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.begin():
            pass
        with engine.connect() as connection, connection.begin() as transaction:
            transaction.rollback()

    assert run(scenario) == pool_numbers(checkouts=2)
    assert agrees(run)


def test_several_transactions_on_a_connection(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            for _ in range(3):
                connection.execute(ADD, {"id": 1})
                connection.commit()
            connection.execute(ADD, {"id": 1})
            connection.rollback()
            connection.commit()  # nothing was begun

    assert run(scenario) == queries(UPDATE=4) | ended(commit=3, rollback=1) | pool_numbers()
    assert agrees(run)


def test_an_exception_of_the_caller_rolls_back(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with pytest.raises(ZeroDivisionError), engine.begin() as connection:
            print(1 / connection.scalar(text("SELECT 0")))

    assert run(scenario) == queries(SELECT=1) | ended(rollback=1) | pool_numbers()
    assert agrees(run)


def test_savepoints(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.begin() as connection:
            with connection.begin_nested():
                connection.execute(ADD, {"id": 1})
            with pytest.raises(exc.IntegrityError), connection.begin_nested():
                connection.execute(text("INSERT INTO account (id) VALUES (1)"))
            connection.execute(ADD, {"id": 2})

    assert run(scenario) == {
        **queries(SAVEPOINT=4, UPDATE=2, INSERT=1),  # SAVEPOINT and RELEASE, SAVEPOINT and ROLLBACK TO
        "query_errors_total INSERT 23": 1,
        **ended(commit=1),
        **pool_numbers(),
    }
    assert agrees(run)


def test_commit_of_an_aborted_transaction_is_a_rollback(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ADD, {"id": 1})
            with pytest.raises(exc.IntegrityError):
                connection.execute(text("INSERT INTO account (id) VALUES (1)"))
            connection.commit()  # PostgreSQL answers ROLLBACK, which the driver takes for success
            assert connection.scalar(text("SELECT balance FROM account WHERE id = 1")) == 0

    assert run(scenario) == {
        **queries(UPDATE=1, INSERT=1, SELECT=1),
        "query_errors_total INSERT 23": 1,
        "transactions_total rollback": 2,
        "commit_duration_seconds_count": 1,
        **pool_numbers(),
    }
    assert agrees(run)


def test_a_client_side_error_does_not_reset_an_aborted_transaction(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            with pytest.raises(exc.IntegrityError):
                connection.execute(text("INSERT INTO account (id) VALUES (1)"))
            with pytest.raises(exc.ProgrammingError):  # the driver knows no such type
                connection.execute(text("SELECT :value"), {"value": object()})
            connection.commit()

    assert run(scenario) == {
        **queries(INSERT=1, SELECT=1),
        "query_errors_total INSERT 23": 1,
        "query_errors_total SELECT other": 1,
        "transactions_total rollback": 1,
        "commit_duration_seconds_count": 1,
        **pool_numbers(),
    }
    assert agrees(run)


def test_commit_fails(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with pytest.raises(exc.IntegrityError), engine.begin() as connection:
            connection.execute(ORPHAN)

    assert run(scenario) == {
        **queries(INSERT=1),
        "query_errors_total COMMIT 23": 1,
        **ended(commit_failed=1),
        **pool_numbers(),
    }
    assert agrees(run)


def test_serialization_failure_at_commit(run: Runner) -> None:
    """Write skew: each of two transactions reads what the other writes; the second cannot commit."""

    def scenario(engine: Engine) -> None:
        serializable = engine.execution_options(isolation_level="SERIALIZABLE")
        with serializable.connect() as first, serializable.connect() as second:
            for connection, read, written in ((first, 1, 2), (second, 2, 1)):
                connection.execute(text("SELECT balance FROM account WHERE id = :id"), {"id": read})
                connection.execute(ADD, {"id": written})
            first.commit()
            with pytest.raises(exc.OperationalError):
                second.commit()

    assert run(scenario) == {
        **queries(SELECT=2, UPDATE=2),
        "query_errors_total COMMIT 40": 1,
        **ended(commit=1, commit_failed=1),
        **pool_numbers(checkouts=2, idle=2),
    }
    assert agrees(run, connections=2)


@pytest.mark.parametrize("where", ["connection", "engine", "create_engine"])
def test_autocommit_makes_each_statement_a_transaction(run: Runner, where: str) -> None:
    def scenario(engine: Engine) -> None:
        if where == "engine":
            engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if where == "connection":
                connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(ADD, {"id": 1})
            connection.execute(ADD, {"id": 2})
            with pytest.raises(exc.IntegrityError):
                connection.execute(text("INSERT INTO account (id) VALUES (1)"))
            connection.commit()

    options = {"isolation_level": "AUTOCOMMIT"} if where == "create_engine" else {}
    assert run(scenario, **options) == {
        **queries(UPDATE=2, INSERT=1),
        "query_errors_total INSERT 23": 1,
        "transactions_total commit": 2,
        "transactions_total rollback": 1,
        **pool_numbers(),
    }


def test_a_transaction_after_autocommit_on_the_same_connection(run: Runner) -> None:
    """What became of the statements before is nothing to it."""

    def scenario(engine: Engine) -> None:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection, pytest.raises(exc.IntegrityError):
            connection.execute(text("INSERT INTO account (id) VALUES (1)"))
        with engine.begin() as connection:
            connection.execute(ADD, {"id": 1})

    assert run(scenario) == {
        **queries(INSERT=1, UPDATE=1),
        "query_errors_total INSERT 23": 1,
        **ended(commit=1, rollback=1),
        **pool_numbers(checkouts=2),
    }
    assert agrees(run)


def test_read_only_transactions(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execution_options(postgresql_readonly=True)
            connection.execute(text("SELECT 1"))
            with pytest.raises(exc.InternalError):
                connection.execute(ADD, {"id": 1})

    assert run(scenario) == {
        **queries(SELECT=1, UPDATE=1),
        "query_errors_total UPDATE 25": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }
    assert agrees(run)


def test_two_phase(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            for prepare, end in ((True, "commit"), (True, "rollback"), (False, "commit"), (False, "rollback")):
                transaction = connection.begin_twophase()
                connection.execute(ADD, {"id": 1})
                if prepare:
                    transaction.prepare()
                getattr(transaction, end)()
                connection.execute(ADD, {"id": 2})  # an ordinary one again
                connection.commit()

    options = {"prepare_threshold": None}  # or psycopg's DEALLOCATE ALL after a rollback counts for the server too
    expected = queries(UPDATE=8) | ended(commit=6, rollback=2) | pool_numbers()
    assert run(scenario, connect_args=options) == expected
    assert agrees(run, second_phases=2)


def test_two_phase_that_cannot_be_prepared(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(ADD, {"id": 1})
            connection.commit()
            transaction = connection.begin_twophase()
            connection.execute(ORPHAN)
            with pytest.raises(exc.IntegrityError):
                transaction.prepare()
            connection.invalidate()  # psycopg takes it for prepared and would send ROLLBACK PREPARED
            transaction.rollback()

    assert run(scenario) == {
        **queries(UPDATE=1, INSERT=1),
        "query_errors_total OTHER 23": 1,
        **ended(commit=1, rollback=1),
        **pool_numbers(idle=0),
        "pool_invalidations_total manual": 1,
    }
    assert agrees(run)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_two_phase_ended_by_statements(run: Runner, end: str) -> None:
    """As SQLAlchemy does where the driver has no calls for it: what it sends then are no transactions of their own."""

    def scenario(engine: Engine) -> None:
        assert run.handle is not None
        with engine.connect() as connection:
            transaction = connection.begin_twophase("by statements")
            connection.execute(ADD, {"id": 1})
            transaction.prepare()
            connection.invalidate()
            transaction.rollback()
        run.handle.uninstrument()
        dialect: Any = engine.dialect
        for name in ("do_commit_twophase", "do_rollback_twophase"):
            setattr(dialect, name, getattr(PGDialect, name).__get__(dialect))
        instrument_engine(engine, pool=run.pool)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            getattr(connection, f"{end}_prepared")("by statements", recover=True)

    assert run(scenario) == {
        **queries(UPDATE=1, OTHER=3),  # ROLLBACK, COMMIT PREPARED or ROLLBACK PREPARED, BEGIN
        **ended(**{end: 1}),
        **pool_numbers(checkouts=2),
        "pool_invalidations_total manual": 1,
    }


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_two_phase_with_a_crash_between(run: Runner, end: str) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            transaction = connection.begin_twophase("left behind")
            connection.execute(ADD, {"id": 1})
            transaction.prepare()
            connection.invalidate()
            transaction.rollback()  # cannot be sent any more
        with engine.connect() as connection:
            assert connection.recover_twophase() == ["left behind"]
            getattr(connection, f"{end}_prepared")("left behind", recover=True)

    assert run(scenario) == {
        **queries(UPDATE=1),
        **ended(**{end: 1}),
        **pool_numbers(checkouts=2),
        "pool_invalidations_total manual": 1,
    }
    assert agrees(run, connections=2, second_phases=1, unseen_rollbacks=1)  # of recover_twophase()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_recovery_rolls_back_what_it_interrupts(run: Runner, end: str) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            transaction = connection.begin_twophase("left behind")
            connection.execute(ADD, {"id": 1})
            transaction.prepare()
            connection.invalidate()
            transaction.rollback()
        with engine.connect() as connection:
            connection.execute(ADD, {"id": 2})
            getattr(connection, f"{end}_prepared")("left behind", recover=True)

    expected = ended(rollback=1, commit=1) if end == "commit" else ended(rollback=2)
    assert run(scenario) == {
        **queries(UPDATE=2),
        **expected,
        **pool_numbers(checkouts=2),
        "pool_invalidations_total manual": 1,
    }
    assert agrees(run, connections=2, second_phases=1)
