"""A service with a database, for tests with several real workers."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.telemetry.database import instrument_engine
from app.telemetry.http import metrics_endpoint

POOL_SIZE = 2
# Read by the test too, which makes no use of the engine.
engine = create_async_engine(
    os.environ.get("TEST_DATABASE_URL", "postgresql+psycopg://"),
    pool_size=POOL_SIZE,
    max_overflow=0,
    connect_args={"application_name": str(os.getpid())},  # identifies the worker of a connection
)
instrument_engine(engine, query_names=("add",))


async def add(request: Request) -> JSONResponse:
    """One transaction, held open for a while on request; answers with the worker's pid."""
    async with engine.begin() as connection:
        statement = text("UPDATE account SET balance = balance + 1 WHERE id = :id")
        account = {"id": int(request.path_params["account"])}
        await connection.execute(statement, account, execution_options={"query_name": "add"})
        await asyncio.sleep(float(request.query_params.get("hold", "0")))
    return JSONResponse(os.getpid())


app = Starlette(routes=[Route("/add/{account}", add, methods=["POST"])])
app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)
