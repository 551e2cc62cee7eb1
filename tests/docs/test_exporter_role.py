"""postgres/exporter-role.sql: the exporter's role in a database that exists already, also without a superuser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ops.paths import PROJECT
from ops.programs import find
from tests.servers import Postgres

SCRIPT = PROJECT / "postgres" / "exporter-role.sql"
ADMIN_PASSWORD = "the password of the administrator"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "exporter_password"
    file.write_text('it\'s a \\ "password"\n')
    return file


@pytest.fixture
def admin(postgres: Postgres) -> Iterator[str]:
    """The DSN of a database whose owner may create roles and grant pg_monitor, as a managed server's first user."""
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE admin LOGIN CREATEROLE PASSWORD {}").format(ADMIN_PASSWORD))
        connection.execute("GRANT pg_monitor TO admin WITH ADMIN OPTION")
        connection.execute("CREATE DATABASE managed OWNER admin")
        yield f"host={postgres.host} port={postgres.port} dbname=managed user=admin password='{ADMIN_PASSWORD}'"
        connection.execute("DROP DATABASE managed")
        connection.execute("DROP ROLE IF EXISTS postgres_exporter")
        connection.execute("REVOKE pg_monitor FROM admin")
        connection.execute("DROP ROLE admin")


def run(dsn: str, password_file: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EXPORTER_PASSWORD_FILE": str(password_file)} if password_file else None
    command = [str(find("psql")["psql"]), "-X", "-d", dsn, "-f", str(SCRIPT)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def as_exporter(dsn: str, password: str) -> psycopg.Connection:
    return psycopg.connect(dsn, user="postgres_exporter", password=password, autocommit=True)


def test_with_a_superuser_everything_is_there(postgres: Postgres, admin: str, password_file: Path) -> None:
    dsn = postgres.superuser_dsn.removesuffix("/postgres") + "/managed"
    for password in ('it\'s a \\ "password"', "another one"):
        password_file.write_text(password)
        result = run(dsn, password_file)
        assert (result.returncode, result.stderr) == (0, ""), "again it only changes the password"
        with as_exporter(dsn, password) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone() == (True,)
            assert connection.execute("SHOW pg_stat_statements.track").fetchone() == ("none",)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE test (id int)")
        assert password not in postgres.running.log


def test_without_a_superuser_what_is_missing_is_named(postgres: Postgres, admin: str, password_file: Path) -> None:
    result = run(admin, password_file)
    assert result.returncode == 0
    assert "pg_stat_statements is not created" in result.stderr
    assert "pg_monitor" not in result.stderr
    with as_exporter(admin, password_file.read_text().strip()) as connection:
        other = connection.execute("SELECT query FROM pg_stat_activity WHERE usename = 'postgres'").fetchone()
        assert other is not None
        assert other[0] != "<insufficient privilege>", "statistics of all users"


def test_a_missing_password_is_named(postgres: Postgres, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for file in (None, empty, tmp_path / "absent"):
        result = run(postgres.superuser_dsn, file)
        assert result.returncode == 3
        assert "EXPORTER_PASSWORD_FILE" in result.stderr.splitlines()[0 if file != tmp_path / "absent" else -1]
