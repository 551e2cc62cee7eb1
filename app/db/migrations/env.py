"""Run by Alembic; `app.db.migrate` hands over the connection."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, func, select

from app.db.models import Base

# Any constant will do, as long as nothing else in this database takes the same advisory lock.
_MIGRATION_LOCK = 0x5167_684C

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata)
with context.begin_transaction():
    # Replicas that start together take turns; the lock goes with the transaction, whatever happens.
    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    context.run_migrations()
