"""Liveness and readiness probes."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, HTTPException, Request
from sqlalchemy import select

from app.api.errors import responses
from app.api.schemas import Status
from app.db.engine import Sessions, named, one_line

READY_TIMEOUT = 2.0  # seconds; shorter than the usual timeout of a probe

logger = logging.getLogger("app.health")
router = APIRouter(tags=["health"])


class DatabaseProbe:
    """Checks that the database answers; concurrent probes share one query.

    So a hung database occupies one connection and one task, however often the service is probed.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._running: asyncio.Task[None] | None = None

    async def answers(self) -> bool:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask())
        # Not wait_for(): it waits for the cancelled driver, which waits for the database.
        done, _ = await asyncio.wait({self._running}, timeout=READY_TIMEOUT)
        if not done:
            logger.warning("The database has not answered within %g s", READY_TIMEOUT)
            return False
        if error := self._running.exception():
            logger.warning("The database is not available: %s", one_line(error))
        return error is None

    async def _ask(self) -> None:
        async with self._sessions() as session:
            await session.scalar(select(1), execution_options=named("ready"))

    async def aclose(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=READY_TIMEOUT)


@router.get("/healthz")
async def healthz() -> Status:
    """Liveness: the process serves requests; its dependencies are not checked."""
    return Status(status="ok")


@router.get("/readyz", responses=responses(503))
async def readyz(request: Request) -> Status:
    """Readiness: the database answers."""
    probe: DatabaseProbe = request.app.state.database_probe
    if not await probe.answers():
        raise HTTPException(503, "The database is not available", {"Retry-After": "1"})
    return Status(status="ok")
