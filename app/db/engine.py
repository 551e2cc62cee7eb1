"""The engine, the sessions, and the names of queries in the metrics."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from app.settings import Settings

Sessions = async_sessionmaker[AsyncSession]

# The values of the label `query_name`; `named()` rejects anything else.
QUERY_NAMES = (
    "user_create",
    "user_by_key",
    "item_list",
    "item_create",
    "item_get",
    "item_update",
    "item_delete",
    "conversation_create",
    "conversation_get",
    "conversation_list",
    "message_create",
    "message_list",
    "ready",
)


def named(query_name: str) -> dict[str, str]:
    """Execution options that set the label `query_name` of a query.

    Raises:
        ValueError: the name is not in QUERY_NAMES.
    """
    if query_name not in QUERY_NAMES:
        raise ValueError(f"{query_name!r} is not in QUERY_NAMES")
    return {"query_name": query_name}


def make_engine(settings: Settings) -> AsyncEngine:
    return create_async_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout,
        pool_pre_ping=True,  # after a restart of PostgreSQL a request gets a new connection instead of an error
        connect_args={
            "connect_timeout": 5,
            "options": f"-c statement_timeout={int(settings.database_statement_timeout * 1000)}",
            # Detect within 15 s that the database host is unreachable.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": 15_000,
            "application_name": "sightline",
        },
    )


def make_sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine, expire_on_commit=False)
