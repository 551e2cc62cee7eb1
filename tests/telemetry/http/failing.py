"""Exceptions of many origins: groups, dependencies, streams, and layers around the application."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry.http import PrometheusMiddleware, metrics_endpoint


class OverQuotaError(Exception):
    """A gateway's own class, as such gateways have."""

    status_code = 429


class Gateway:
    """Around the whole application: its receive() or send() raises what the query says, and it answers that itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode()
        started = False

        async def limited_receive() -> Message:
            if query == "receive=http":
                raise HTTPException(429)
            return await receive()

        async def limited_send(message: Message) -> None:
            nonlocal started
            if query == "send=own":
                raise OverQuotaError
            if query == "send=http":
                raise HTTPException(429)
            started = True
            await send(message)

        try:
            await self.app(scope, limited_receive, limited_send)
        except (OverQuotaError, HTTPException) as error:
            if started:
                raise
            await PlainTextResponse("", error.status_code)(scope, receive, send)


inner = FastAPI(max_body_size=1000)
inner.add_middleware(PrometheusMiddleware)
inner.add_route("/metrics", metrics_endpoint(), include_in_schema=False)
app = Gateway(inner)


@inner.get("/plain")
async def plain() -> None:
    return None


@inner.post("/reads")
async def reads(request: Request) -> None:
    await request.body()


@inner.post("/reads-in-a-group")
async def reads_in_a_group(request: Request) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(request.body())


@inner.post("/reads-and-fails")
async def reads_and_fails(request: Request) -> None:
    try:
        await request.body()
    except Exception as error:
        raise ExceptionGroup("both", [error, LookupError()]) from error


@inner.post("/echo", max_body_size=100)
async def echo(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"from the start"
        async for piece in request.stream():
            yield piece

    return StreamingResponse(body())


@inner.get("/cancelled-and-failed")
async def cancelled_and_failed() -> None:
    raise BaseExceptionGroup("both", [asyncio.CancelledError(), ExceptionGroup("inner", [LookupError()])])


@inner.get("/waits-for-what-is-cancelled")
async def waits_for_what_is_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def unsure() -> AsyncIterator[None]:
    yield
    raise HTTPException(409)  # too late: the response is complete


@inner.get("/dependency")
async def dependency(unsure: Annotated[None, Depends(unsure)]) -> None:
    return None


@inner.get("/stream")
async def stream() -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"from the start"
        raise HTTPException(409)

    return StreamingResponse(body())


@inner.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[str]:
    yield "from the start"
    await asyncio.sleep(0.5)  # FastAPI breaks off only what raises right after an event
    raise LookupError


async def fail() -> None:
    raise LookupError


@inner.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


@inner.websocket("/socket-that-waits")
async def socket_that_waits(websocket: WebSocket) -> None:
    await websocket.accept()
    await waits_for_what_is_cancelled()


@inner.websocket("/socket-that-cleans-up")
async def socket_that_cleans_up(websocket: WebSocket) -> None:
    await websocket.accept()
    task = asyncio.create_task(asyncio.sleep(60))
    try:
        await websocket.receive_text()
    finally:
        task.cancel()
        await task
