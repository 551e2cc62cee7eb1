"""Queries and their errors, with the exact numbers each case leaves."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, exc, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from app.telemetry.database import OPERATIONS, metrics, operation_of
from app.telemetry.database import queries as queries_module
from tests.telemetry.database.measured import Runner, ended, numbers, pool_numbers, queries


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


def failing(connection: Connection, statement: str, **options: Any) -> exc.DBAPIError:
    with pytest.raises(exc.DBAPIError) as caught:
        connection.execute(text(statement), execution_options=options)
    return caught.value


def test_read_write_and_commit(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            connection.execute(text("UPDATE account SET balance = 1 WHERE id = 1"))
            connection.execute(text("DELETE FROM account WHERE id = 2"))
            connection.execute(insert(Account).values(id=11, balance=0))

    assert run(scenario) == queries(SELECT=1, INSERT=1, UPDATE=1, DELETE=1) | ended(commit=1) | pool_numbers()
    assert run.seconds("db_query_duration_seconds") > 0
    assert run.seconds("db_commit_duration_seconds") > 0


def test_every_operation(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.begin() as connection:
            for statement in (
                "CREATE PROCEDURE pg_temp.nothing() LANGUAGE SQL AS ''",
                "CALL pg_temp.nothing()",
                "MERGE INTO account a USING (VALUES (99)) v (id) ON a.id = v.id WHEN MATCHED THEN DELETE",
                "WITH gone AS (DELETE FROM account WHERE id = 1 RETURNING *) SELECT * FROM gone",
                "SHOW server_version",
            ):
                connection.execute(text(statement))

    expected = queries(DDL=1, CALL=1, MERGE=1, SELECT=1, OTHER=1) | ended(commit=1) | pool_numbers()
    assert run(scenario) == expected


def test_query_names_are_allow_listed(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with Session(engine) as session:
            session.execute(select(Account), execution_options={"query_name": "list_accounts"})
            session.execute(select(Account), execution_options={"query_name": "not allowed"})
            session.execute(select(Account), execution_options={"query_name": ["unhashable"]})
            session.execute(select(Account).execution_options(query_name="list_accounts"))
        with engine.execution_options(query_name="from_the_engine").connect() as connection:
            connection.execute(select(Account))

    names = ("list_accounts", "from_the_engine")
    assert run(scenario, names) == {
        "query_duration_seconds_count SELECT list_accounts": 2,
        "query_duration_seconds_count SELECT from_the_engine": 1,
        **queries(SELECT=2),
        **ended(rollback=2),
        **pool_numbers(checkouts=2),
    }


@pytest.mark.parametrize(
    ("statement", "operation", "sqlstate_class"),
    [
        ("SELECT 1 / 0", "SELECT", "22"),
        ("INSERT INTO account (id) VALUES (1)", "INSERT", "23"),
        ("SELECT nonsense", "SELECT", "42"),
        ("UPDATE nowhere SET a = 1", "UPDATE", "42"),
        ("CREATE TABLE account (id int)", "DDL", "42"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$", "OTHER", "53"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'QQ123'; END $$", "OTHER", "other"),
    ],
)
def test_errors_by_sqlstate_class(run: Runner, statement: str, operation: str, sqlstate_class: str) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            failing(connection, statement)

    assert run(scenario) == {
        **queries(**{operation: 1}),
        f"query_errors_total {operation} {sqlstate_class}": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }


def test_statement_timeout_is_timed_and_counted(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '100ms'"))
            failing(connection, "SELECT pg_sleep(30)")

    assert run(scenario) == {
        **queries(OTHER=1, SELECT=1),
        "query_errors_total SELECT 57": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }
    assert 0.1 <= run.seconds("db_query_duration_seconds") < 30


def test_an_error_of_the_caller_is_none_of_the_database(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            with pytest.raises(exc.StatementError):
                connection.execute(text("SELECT :missing"), {"given": 1})
            with pytest.raises(exc.ProgrammingError):  # the driver knows no such type
                connection.execute(text("SELECT :value"), {"value": object()})

    assert run(scenario) == {
        **queries(SELECT=1),
        "query_errors_total SELECT other": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }


def test_executemany_is_one_query(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO account (id) VALUES (:id)"), [{"id": 100 + n} for n in range(50)])
            connection.execute(text("UPDATE account SET balance = :b"), [{"b": n} for n in range(50)])

    assert run(scenario) == queries(INSERT=1, UPDATE=1) | ended(commit=1) | pool_numbers()


def test_bulk_insert_is_one_query_per_batch(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with Session(engine) as session:
            rows = [{"id": 100 + n, "balance": n} for n in range(2500)]
            assert len(session.scalars(insert(Account).returning(Account.id), rows).all()) == 2500
            session.commit()

    assert (
        run(scenario) == queries(INSERT=3) | ended(commit=1) | pool_numbers()
    )  # SQLAlchemy sends 1,000 rows at a time


def test_an_error_in_a_bulk_insert(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with Session(engine) as session, pytest.raises(exc.IntegrityError):
            session.scalars(insert(Account).returning(Account.id), [{"id": 1, "balance": 0}, {"id": 99, "balance": 0}])

    assert run(scenario) == {
        **queries(INSERT=1),
        "query_errors_total INSERT 23": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }


def test_a_statement_without_parameters_at_all(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            options = {"no_parameters": True, "query_name": "percent"}
            assert connection.exec_driver_sql("SELECT '%'", execution_options=options).scalar() == "%"
            with pytest.raises(exc.ProgrammingError):
                connection.exec_driver_sql("SELECT %", execution_options=options)

    assert run(scenario, ("percent",)) == {
        "query_duration_seconds_count SELECT percent": 2,
        "query_errors_total SELECT 42": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }


def test_what_a_listener_answers_itself_is_no_query(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        def from_a_cache(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            return statement == "SELECT 'cached'"

        event.listen(engine, "do_execute", from_a_cache)
        with engine.connect() as connection:
            connection.execute(text("SELECT 'cached'"))
            connection.execute(text("SELECT 'fresh'"))

    assert run(scenario) == queries(SELECT=1) | ended(rollback=1) | pool_numbers()


def test_a_listener_may_change_the_statement(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        def changed(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
            return f"/* SELECT */ {statement}".replace("SELECT 1", "DELETE FROM account"), parameters

        event.listen(engine, "before_cursor_execute", changed, retval=True)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    assert run(scenario) == queries(DELETE=1) | ended(rollback=1) | pool_numbers()


def test_server_side_cursor(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            options = {"stream_results": True, "max_row_buffer": 10}
            rows = connection.execute(text("SELECT generate_series(1, 1000)"), execution_options=options)
            assert len(rows.all()) == 1000

    assert run(scenario) == queries(SELECT=1) | ended(rollback=1) | pool_numbers()


def test_an_error_while_a_server_side_cursor_fetches(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            options = {"stream_results": True, "max_row_buffer": 10}
            statement = text("SELECT 1 / (500 - n) FROM generate_series(1, 1000) n")
            rows = connection.execute(statement, execution_options=options)
            with pytest.raises(exc.DataError):
                rows.all()

    assert run(scenario) == {
        **queries(SELECT=1),
        "query_errors_total SELECT 22": 1,
        **ended(rollback=1),
        **pool_numbers(),
    }


def test_statements_are_not_in_labels(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 'secret_text', :secret"), {"secret": "secret_parameter"})
            failing(connection, "SELECT secret_column FROM secret_table", query_name="secret_name")

    assert not [name for name in run(scenario) if "secret" in name]


def test_a_fault_of_the_telemetry_stays_out_of_the_query(
    run: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("telemetry is broken")

    def scenario(engine: Engine) -> None:
        for metric in (metrics.QUERY_DURATION, metrics.QUERY_ERRORS):
            monkeypatch.setattr(metric, "labels", broken)
        for _ in range(2):
            with engine.begin() as connection:
                assert connection.execute(text("SELECT 1")).scalar() == 1
            with engine.connect() as connection:
                assert failing(connection, "SELECT 1 / 0").orig.sqlstate == "22012"  # type: ignore[union-attr]

    monkeypatch.setattr(metrics, "_warned", set())
    for name in ("observer", "zero_observer", "adder"):
        monkeypatch.setattr(metrics, name, lambda child: broken)
    with caplog.at_level(logging.WARNING, logger="sightline_telemetry"):
        run(scenario)
    monkeypatch.undo()
    assert "do_commit failed; logged once" in caplog.text
    assert numbers(run.pool) == {"pool_connections_max": 15}  # the gauges are right, the rest could not be counted


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("select 1", "SELECT"),
        ("\n\t SELECT 1", "SELECT"),
        ("((SELECT 1) UNION (SELECT 2))", "SELECT"),
        ("VALUES (1), (2)", "SELECT"),
        ("TABLE account", "SELECT"),
        ("-- INSERT\n/* UPDATE /* nested */ still */ SELECT 1", "SELECT"),
        ("/*comment*/delete from account", "DELETE"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
        ("WITH a AS (DELETE FROM t RETURNING *), b(x) AS (SELECT 1) INSERT INTO c SELECT * FROM a", "INSERT"),
        ("with recursive a (n) as not materialized (values (1)) update t set x = (select 1)", "UPDATE"),
        ("WITH values AS (SELECT 1), \"select\" AS (SELECT ')'), c AS (SELECT $$ ) $$) DELETE FROM t", "DELETE"),
        ("WITH a AS (SELECT E'\\') SELECT', $x$ ( $$ $x$, $1) MERGE INTO t USING a ON true", "MERGE"),
        ("(WITH a AS (SELECT 1) SELECT * FROM a)", "SELECT"),
        ("WITH a AS (SELECT 'unterminated", "OTHER"),
        ("WITH a AS (SELECT 1)", "OTHER"),
        ("CALL refresh()", "CALL"),
        ("TRUNCATE account", "DDL"),
        ("CREATE TABLE insert_into (id int)", "DDL"),
        ("SAVEPOINT a", "SAVEPOINT"),
        ("RELEASE SAVEPOINT a", "SAVEPOINT"),
        ("ROLLBACK TO SAVEPOINT a", "SAVEPOINT"),
        ("rollback transaction to a", "SAVEPOINT"),
        ("ROLLBACK", "OTHER"),
        ("EXPLAIN ANALYZE DELETE FROM account", "OTHER"),
        ("VACUUM", "OTHER"),
        ("SELECTED", "OTHER"),
        ("/* no end", "OTHER"),
        ("", "OTHER"),
        (";", "OTHER"),
        ("WITH " + "a AS (SELECT 1), " * 100_000, "OTHER"),
    ],
)
def test_operation_of(statement: str, operation: str) -> None:
    assert operation_of(statement) == operation


@given(
    st.lists(st.sampled_from([*"()'\"`$;,*/- \n", "WITH", "AS", "SELECT", "E'", "$$", "$a$", "--", "/*", "*/", "é"]))
)
def test_operation_of_anything(pieces: list[str]) -> None:
    assert operation_of(" ".join(pieces)) in OPERATIONS
    assert operation_of("".join(pieces)) in OPERATIONS


def test_operation_cache_is_bounded(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with engine.connect() as connection:
            for number in range(queries_module.CACHE_LIMIT + 10):
                connection.exec_driver_sql(f"SELECT {number}")

    assert run(scenario)["query_duration_seconds_count SELECT other"] == queries_module.CACHE_LIMIT + 10
    assert run.handle is not None
    assert len(run.handle._queries.observers[None]) <= queries_module.CACHE_LIMIT


def test_long_and_bulk_statements_are_not_remembered(run: Runner) -> None:
    def scenario(engine: Engine) -> None:
        with Session(engine) as session:
            session.execute(text(f"SELECT '{'x' * queries_module.CACHED_LENGTH}'"))
            session.execute(insert(Account), [{"id": 100 + n, "balance": n} for n in range(5)])
            session.scalars(insert(Account).returning(Account.id), [{"id": 200 + n, "balance": n} for n in range(5)])
            session.execute(text("SELECT 'short'"))

    run(scenario)
    assert run.handle is not None
    assert list(run.handle._queries.observers[None]) == ["SELECT 'short'"]


def test_normal_use_logs_no_warnings(
    run: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLAlchemy's first look at the server, too, is nothing to wonder at."""

    def scenario(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))

    monkeypatch.setattr(metrics, "_warned", set())
    with caplog.at_level(logging.WARNING, logger="sightline_telemetry"):
        assert run(scenario) == queries(SELECT=1) | ended(commit=1) | pool_numbers()
    assert not [record for record in caplog.records if record.name.startswith("app.telemetry")]
