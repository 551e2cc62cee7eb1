"""Liveness and readiness probes."""

from __future__ import annotations

import asyncio
import logging
import signal
from types import FrameType

from fastapi import APIRouter, FastAPI, HTTPException, Request
from sqlalchemy import select

from app.api.errors import responses
from app.api.schemas import Status
from app.db.engine import Sessions, named
from app.db.errors import one_line

READY_TIMEOUT = 2.0  # seconds; shorter than the usual timeout of a probe

logger = logging.getLogger("app.health")
router = APIRouter(tags=["health"])


class DatabaseProbe:
    """Checks that the database responds; concurrent probes share one query.

    So a hung database occupies one connection and one task, however often the service is probed.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._running: asyncio.Task[None] | None = None

    async def answers(self) -> bool:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask())
        asked = self._running  # the next probe may replace it before this one has its result
        # Not wait_for(): it waits for the cancelled driver, which waits for the database.
        done, _ = await asyncio.wait({asked}, timeout=READY_TIMEOUT)
        if not done:
            logger.warning("The database has not answered within %g s", READY_TIMEOUT)
            return False
        if error := asked.exception():
            logger.warning("The database is not available: %s", one_line(error))
        return error is None

    async def _ask(self) -> None:
        async with self._sessions() as session:
            await session.scalar(select(1), execution_options=named("ready"))

    async def aclose(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=READY_TIMEOUT)


def drain_before_the_end(app: FastAPI, seconds: float) -> None:
    """Be unready from SIGTERM on; after `seconds`, or a second SIGTERM, the server's own handler ends it.

    A server that stops listening immediately would refuse requests that a load balancer still sends meanwhile.
    """
    loop = asyncio.get_running_loop()
    end = signal.getsignal(signal.SIGTERM)
    if not callable(end):
        raise TypeError("the server sets its signal handlers before it starts the application")

    def begin(number: int, frame: FrameType | None) -> None:
        if app.state.draining:
            end(number, frame)
        else:
            app.state.draining = True
            loop.call_soon_threadsafe(loop.call_later, seconds, end, number, None)

    signal.signal(signal.SIGTERM, begin)


@router.get("/healthz")
async def healthz() -> Status:
    """Liveness: the process serves requests; its dependencies are not checked."""
    return Status(status="ok")


@router.get("/readyz", responses=responses(503))
async def readyz(request: Request) -> Status:
    """Readiness: the service is not shutting down, and the database responds."""
    if request.app.state.draining:
        raise HTTPException(503, "The service is shutting down")
    probe: DatabaseProbe = request.app.state.database_probe
    if not await probe.answers():
        raise HTTPException(503, "The database is not available", {"Retry-After": "1"})
    return Status(status="ok")
