"""A service that counts its users, for tests with several real workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.telemetry.http import metrics_endpoint
from app.telemetry.users import ActiveUsersMiddleware, active_users
from app.telemetry.users_store import UsersStore


async def visit(request: Request) -> JSONResponse:
    """One user by the middleware, as a dependency that authenticates passes it on; answers with the worker's pid."""
    request.state.user_id = request.headers.get("authorization")
    return JSONResponse(os.getpid())


async def visits(request: Request) -> JSONResponse:
    """Many users in one request, to be quick."""
    for user_id in await request.json():
        active_users.touch(user_id)
    return JSONResponse(os.getpid())


PASSWORD = Path(os.environ.get("ACTIVE_USERS_STORE_PASSWORD_FILE", os.devnull)).read_text()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """With a store, if the environment names one."""
    if "ACTIVE_USERS_STORE" not in os.environ:
        yield
        return
    store = UsersStore(os.environ["ACTIVE_USERS_STORE"], os.environ["ACTIVE_USERS_KEY"].encode(), PASSWORD)
    store.start()
    yield
    await asyncio.to_thread(store.close)


app = Starlette(lifespan=lifespan, routes=[Route("/visit", visit), Route("/visits", visits, methods=["POST"])])
app.add_middleware(ActiveUsersMiddleware, identify=lambda scope: scope.get("state", {}).get("user_id"))
app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)
