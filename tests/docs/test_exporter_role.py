"""postgres/exporter-role.sql: the exporter's role in a database that exists already, also without a superuser."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ops import servers
from ops.paths import PROJECT
from ops.programs import find
from tests.running import Running, free_port
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


@pytest.fixture
def master(postgres: Postgres) -> Iterator[str]:
    """The DSN of a managed server's first user in the service's database: no superuser, its rights are a group's."""
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE managed_superuser NOLOGIN")
        connection.execute("GRANT pg_monitor, pg_signal_backend TO managed_superuser WITH ADMIN OPTION")
        connection.execute(
            sql.SQL("CREATE ROLE master LOGIN CREATEDB CREATEROLE IN ROLE managed_superuser PASSWORD {}").format(
                ADMIN_PASSWORD
            )
        )
    service = postgres.create_database().rpartition("/")[2]
    with psycopg.connect(postgres.superuser_dsn.removesuffix("postgres") + service, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")  # which such servers allow their first user
        yield f"host={postgres.host} port={postgres.port} dbname={service} user=master password='{ADMIN_PASSWORD}'"
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(service)))
        connection.execute("REVOKE pg_monitor FROM managed_superuser CASCADE")
        connection.execute("DROP ROLE IF EXISTS postgres_exporter")
        connection.execute("DROP OWNED BY managed_superuser")
        connection.execute("DROP ROLE IF EXISTS master, managed_superuser")


def collectors(port: int) -> dict[str, bool]:
    """Collector of postgres_exporter -> whether it succeeds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    assert re.search(r"^pg_up 1$", text, re.MULTILINE), text[-2000:]
    found = re.findall(r'^pg_scrape_collector_success\{collector="(\w+)"\} (\d)$', text, re.MULTILINE)
    return {name: value == "1" for name, value in found}


def test_the_first_user_of_a_managed_server_suffices(
    postgres: Postgres, master: str, password_file: Path, tmp_path: Path
) -> None:
    password_file.write_text("a-password")
    result = run(master, password_file)
    assert (result.returncode, result.stderr) == (0, ""), "also in a database that is not its own"

    def exporter(*options: str) -> dict[str, bool]:
        made = servers.postgres_exporter(free_port(), postgres.port, password_file)
        service = psycopg.conninfo.conninfo_to_dict(master)["dbname"]
        changed = {
            "DATA_SOURCE_URI": f"127.0.0.1:{postgres.port}/{service}?sslmode=disable",
            "DATA_SOURCE_USER": "postgres_exporter",
        }
        made = replace(made, command=(*made.command, *options), environment={**made.environment, **changed})
        running = Running(made, tmp_path / "exporter.log")
        try:
            running.wait()
            return collectors(running.port)
        finally:
            running.stop()

    everything = exporter()
    # Below PostgreSQL 17 there is no such view, and DatabaseCollectorFailing does not mind.
    assert {name for name, well in everything.items() if not well} <= {"stat_checkpointer"}
    assert {"stat_statements", "wal", "long_running_transactions"} <= everything.keys()

    password = (postgres.secrets / "postgres_password").read_text()
    with psycopg.connect(master, user="postgres", password=password) as connection:
        # As where there are no files to list.
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_ls_waldir() FROM pg_monitor")
    assert exporter()["wal"] is False
    guide = (PROJECT / "docs" / "adopt.md").read_text()
    assert "`--no-collector.wal` after the options" in guide
    assert exporter("--no-collector.wal").keys() == everything.keys() - {"wal"}


@pytest.mark.parametrize("setting", ["log_statement = 'ddl'", "log_min_duration_statement = 0"])
def test_a_server_that_would_log_the_password_is_refused(
    postgres: Postgres, admin: str, password_file: Path, setting: str
) -> None:
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE managed SET {setting}")
    password_file.write_text("never to be logged")
    result = run(admin, password_file)
    assert result.returncode == 3
    assert f"{setting.replace(chr(39), '')} would log the password" in result.stderr
    assert "never to be logged" not in postgres.running.log


def test_a_missing_password_is_named(postgres: Postgres, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for file in (None, empty, tmp_path / "absent"):
        result = run(postgres.superuser_dsn, file)
        assert result.returncode == 3
        assert "EXPORTER_PASSWORD_FILE" in result.stderr.splitlines()[0 if file != tmp_path / "absent" else -1]
