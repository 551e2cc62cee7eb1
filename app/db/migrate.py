"""Migrate the database to the newest schema; idempotent, and safe to run by several replicas at once."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from app.db.engine import one_line
from app.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger("app.migrate")


class MigrationError(Exception):
    """The migration failed; the message says why."""


def alembic_config() -> Config:
    from alembic.config import Config  # imported here: the workers import this module, too, but do not migrate

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def migrate(settings: Settings) -> None:
    """Wait for the database (at most `database_wait` seconds) and run the missing migrations.

    Raises:
        MigrationError: the database is not reachable, its schema is unknown, or a migration failed.
    """
    from alembic import command
    from alembic.util import CommandError

    engine = create_engine(settings.database_url, connect_args={"connect_timeout": 5})
    config = alembic_config()
    try:
        _wait_for_database(engine, settings)
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise MigrationError(f"The database's schema does not fit this version of the service: {error}") from error
    except DBAPIError as error:
        raise MigrationError(f"A migration failed: {one_line(error)}") from error
    finally:
        engine.dispose()


def _wait_for_database(engine: Engine, settings: Settings) -> None:
    where = f"PostgreSQL at {settings.database_host}:{settings.database_port}"
    deadline = time.monotonic() + settings.database_wait
    waiting = False
    while True:
        try:
            engine.connect().close()
            return
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"{where} did not let user {settings.database_user!r} into database {settings.database_name!r} "
                    f"within {settings.database_wait:g} s: {one_line(error)}. "
                    "Check DATABASE_HOST, DATABASE_PORT, DATABASE_NAME, DATABASE_USER and DATABASE_PASSWORD_FILE."
                ) from error
            if not waiting:
                logger.info("Waiting for %s: %s", where, one_line(error))
                waiting = True
            time.sleep(0.5)
