"""Faults of the database: slow queries, an exhausted pool, locks."""

from __future__ import annotations

import asyncio
import contextlib

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.faults.base import Fault, Service, Share

# Two-key advisory locks never collide with the one-key lock of the migrations.
_LOCK_SPACE = 0x5167


class DatabaseSlow(Fault):
    """Every query first sleeps in PostgreSQL."""

    name = "database-slow"
    share: Share = 1.0
    delay: float = Field(1, gt=0, le=10, description="Seconds.")


class PoolExhausted(Fault):
    """Every connection of the pool is checked out and held."""

    name = "pool-exhausted"

    async def run(self, service: Service) -> None:
        async with contextlib.AsyncExitStack() as connections:
            for _ in range(service.pool_limit):
                while True:
                    # Requests hold connections, too: wait until they return them.
                    with contextlib.suppress(PoolTimeoutError):
                        await connections.enter_async_context(service.engine.connect())
                        break
            await asyncio.Event().wait()


class Deadlocks(Fault):
    """Pairs of transactions take the same two locks in opposite order; PostgreSQL ends one of each pair."""

    name = "deadlocks"
    one_worker = True
    pause: float = Field(1, ge=0, le=60, description="Seconds between deadlocks; PostgreSQL takes 1 s to detect one.")

    async def run(self, service: Service) -> None:
        while True:
            both_hold_one = asyncio.Barrier(2)
            pair = [self._lock(service.engine, both_hold_one, *order) for order in ((1, 2), (2, 1))]
            for error in await asyncio.gather(*pair, return_exceptions=True):
                if error is not None and not isinstance(error, DBAPIError | TimeoutError | PoolTimeoutError):
                    raise error
            await asyncio.sleep(self.pause)

    async def _lock(self, engine: AsyncEngine, both_hold_one: asyncio.Barrier, first: int, second: int) -> None:
        """Advisory locks deadlock like row locks, and touch no data."""
        async with asyncio.timeout(30), engine.begin() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, first)))
            await both_hold_one.wait()
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, second)))


class LongTransaction(Fault):
    """A transaction with an assigned id stays open and idle, so vacuum cannot remove newer dead rows."""

    name = "long-transaction"
    one_worker = True

    async def run(self, service: Service) -> None:
        async with service.engine.connect() as connection:
            await connection.execute(select(func.pg_current_xact_id()))
            await asyncio.Event().wait()
