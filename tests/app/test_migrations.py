"""Migrations: again, by several replicas at once, and of a database that is newer than the service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine

from app.db.migrate import FOLDER, MigrationError, migrate, newest_revision
from app.db.models import Base
from app.settings import Settings
from tests.app.command import run
from tests.running import wait_until
from tests.servers import Postgres


def revision(postgres: Postgres, environment: dict[str, str]) -> str:
    with psycopg.connect(postgres.dsn(environment["DATABASE_NAME"])) as connection:
        row = connection.execute("SELECT string_agg(version_num, ' ') FROM alembic_version").fetchone()
        assert row
        return str(row[0])


def test_migrating_again_changes_nothing(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    first = run(environment, "migrate")
    assert first.returncode == 0, first.stderr
    before = revision(postgres, environment)
    assert run(environment, "migrate").returncode == 0
    assert revision(postgres, environment) == before == newest_revision()


# Starts the service's command where neither library can be imported.
WITHOUT_ALEMBIC = """
import runpy, sys
sys.modules |= dict.fromkeys(["alembic", "sqlalchemy"])
sys.argv[0] = "app"
runpy.run_module("app", run_name="__main__", alter_sys=True)
"""


def test_a_database_that_is_up_to_date_needs_no_alembic(settings: Settings, postgres: Postgres) -> None:
    environment = postgres.environment(postgres.dsn(settings.database_name))
    assert "ModuleNotFoundError" in run(environment, "migrate", program=("-c", WITHOUT_ALEMBIC)).stderr
    migrate(settings)
    again = run(environment, "migrate", program=("-c", WITHOUT_ALEMBIC))
    assert again.returncode == 0, again.stderr


def test_the_newest_revision_is_alembics_head() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(FOLDER)).get_heads() == [newest_revision()]


@pytest.mark.parametrize(
    ("files", "newest"),
    [
        ({"'1'": "None", "'2-b'": "'1'"}, "2-b"),
        ({'"1"': "None", '"2"': '"1"', '"3"': '"1"'}, None),  # two heads
        ({'"1"': "None", '"2"': '"1"', '"3"': '"1"', '"4"': '("2", "3")'}, "4"),  # a merge
        ({'"1"': "None", "computed()": '"1"'}, None),
    ],
)
def test_ambiguous_revisions_are_left_to_alembic(files: dict[str, str], newest: str | None, tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    for number, (own, follows) in enumerate(files.items()):
        text = f"revision: str = {own}\ndown_revision: str | None = {follows}\n"
        (tmp_path / "versions" / f"{number}.py").write_text(text)
    assert newest_revision(tmp_path) == newest


def test_replicas_may_migrate_at_once(settings: Settings, postgres: Postgres) -> None:
    # Alembic keeps its context in globals: processes, as in real life.
    dsn = postgres.dsn(settings.database_name)
    environment = postgres.environment(dsn)
    with (
        psycopg.connect(dsn, autocommit=True) as observer,
        ThreadPoolExecutor(3) as pool,
        psycopg.connect(dsn) as obstacle,
    ):
        obstacle.execute("CREATE TABLE users ()")  # until this is rolled back, migrations that create the table wait
        runs = [pool.submit(run, environment, "migrate") for _ in range(3)]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: observer.execute(waiting).fetchone() == (3,))
        obstacle.rollback()
        results = [finished.result() for finished in runs]
    assert [result.returncode for result in results] == [0] * 3, [result.stderr for result in results]
    assert revision(postgres, environment) == "0001"


def test_migrations_create_the_tables_of_the_models(settings: Settings) -> None:
    from alembic.autogenerate import compare_metadata  # not by every process that collects the tests
    from alembic.migration import MigrationContext

    migrate(settings)
    with create_engine(settings.database_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_schema_of_a_newer_version_is_refused(settings: Settings, postgres: Postgres) -> None:
    migrate(settings)
    with psycopg.connect(postgres.dsn(settings.database_name)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationError, match=r"does not match this version of the service: .*'9999'"):
        migrate(settings)
