"""Migrate the database to the newest schema; idempotent, and safe to run by several replicas at once.

A database that is up to date is recognised without SQLAlchemy and Alembic, whose import takes most of a second: the
process that starts the workers needs neither.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import psycopg

from app.db.errors import one_line
from app.settings import Settings

logger = logging.getLogger("app.migrate")

FOLDER = Path(__file__).with_name("migrations")


class MigrationError(Exception):
    """The migration failed; the message gives the reason."""


def migrate(settings: Settings) -> None:
    """Wait for the database (at most `database_wait` seconds) and run the missing migrations.

    Raises:
        MigrationError: the database is not reachable, its schema is unknown, or a migration failed.
    """
    with _connect(settings) as connection:
        up_to_date = _revisions(connection) == {newest_revision()}  # in doubt, Alembic decides
    if not up_to_date:
        _upgrade(settings)


def newest_revision(folder: Path = FOLDER) -> str | None:
    """The revision of the last migration; None if that is ambiguous."""
    files = [file.read_text() for file in folder.glob("versions/*.py")]
    own, followed = (
        [
            {*re.findall(r"""["']([^"']+)["']""", line)}
            for text in files
            for line in re.findall(rf"^{name}\b[^=\n]*=(.*)$", text, re.MULTILINE)
        ]
        for name in ("revision", "down_revision")
    )
    newest = set().union(*own) - set().union(*followed)
    readable = len(own) == len(followed) == len(files) and all(len(names) == 1 for names in own)
    return newest.pop() if readable and len(newest) == 1 else None


def _revisions(connection: psycopg.Connection) -> set[str]:
    """The revisions that Alembic has stored in the database; none in a new one."""
    try:
        return {str(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")}
    except psycopg.Error:  # the table does not exist yet; Alembic will report any other error
        return set()


def _upgrade(settings: Settings) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    engine = create_engine(settings.database_url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise MigrationError(f"The database schema does not match this version of the service: {error}") from error
    except DBAPIError as error:
        raise MigrationError(f"A migration failed: {one_line(error)}") from error
    finally:
        engine.dispose()


def _connect(settings: Settings) -> psycopg.Connection:
    where = f"PostgreSQL at {settings.database_host}:{settings.database_port}"
    deadline = time.monotonic() + settings.database_wait
    waiting = False
    while True:
        try:
            return psycopg.connect(**settings.database, connect_timeout=5)
        except psycopg.OperationalError as error:
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"{where} did not accept user {settings.database_user!r} for database {settings.database_name!r} "
                    f"within {settings.database_wait:g} s: {one_line(error)}. "
                    "Check DATABASE_HOST, DATABASE_PORT, DATABASE_NAME, DATABASE_USER and DATABASE_PASSWORD_FILE."
                ) from error
            if not waiting:
                logger.info("Waiting for %s: %s", where, one_line(error))
                waiting = True
            time.sleep(0.5)
