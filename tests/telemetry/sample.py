"""An application with every kind of route and every way for a request to end, served by a real server in the tests.

SAMPLE_* in the environment set the middleware's options.
"""

import asyncio
import contextvars
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from app.telemetry.http import PrometheusMiddleware, metrics_endpoint
from tests.telemetry.working import do_work, trace

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")


class SeesContext:
    """Reports, in a header of the next response, what the endpoint set in a context variable."""

    last = ""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen.set("outer")
        await self.app(scope, receive, send)
        SeesContext.last = seen.get()


options: dict[str, Any] = {"exclude_paths": ("/excluded",), "exemplar": trace}
if "SAMPLE_MAX_SERIES" in os.environ:
    options["max_series"] = int(os.environ["SAMPLE_MAX_SERIES"])

app = FastAPI(version="4.5.6")
app.add_middleware(CORSMiddleware, allow_origins=["https://friend.example"], allow_methods=["GET"])
app.add_middleware(PrometheusMiddleware, **options)
app.add_middleware(SeesContext)
app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)
app.add_route(
    "/guarded-metrics", metrics_endpoint(token_file=os.environ.get("SAMPLE_TOKEN_FILE", "/nonexistent")), name="guarded"
)
finish = asyncio.Event()


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, int]:
    return {"item_id": item_id}


@app.post("/items/{item_id}")
async def change(item_id: int, request: Request) -> int:
    return len(await request.body())


@app.head("/only-head")
async def only_head() -> Response:
    return PlainTextResponse("x" * 5000)


@app.get("/excluded")
async def excluded() -> None:
    return None


@app.get("/teapot")
def teapot() -> None:
    raise HTTPException(418)


@app.get("/fails")
async def fails() -> None:
    raise LookupError("a test")


@app.get("/fails-before-it-starts")
def unavailable() -> None:
    raise HTTPException(503)


@app.api_route("/queried", methods=["QUERY"])
def queried() -> None:
    return None


@app.get("/fails-late")
async def fails_late() -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"a" * 10
        raise LookupError("a test")

    return StreamingResponse(body())


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns without a response."""


app.mount("/says-nothing", silent)


@app.get("/cancelled")
async def cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


@app.get("/announced")
async def announced() -> StreamingResponse:
    """Sends all of the body that its head announces, and then goes on for long."""

    async def body() -> AsyncIterator[bytes]:
        yield b"b" * 100
        await asyncio.sleep(60)

    return StreamingResponse(body(), headers={"content-length": "100"})


@app.get("/fails-in-groups")
async def fails_in_groups(kinds: int) -> None:
    found: list[Exception] = [LookupError(), ExceptionGroup("inner", [LookupError()])]
    raise ExceptionGroup("outer", found if kinds == 1 else [*found, ValueError()])


@app.get("/stream/{pieces}")
async def stream(pieces: int, pause: float = 0.0) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"b" * 100
            await asyncio.sleep(pause)

    return StreamingResponse(body())


@app.get("/waits-for-leave")
async def waits_for_leave(request: Request) -> str:
    while not await request.is_disconnected():  # noqa: ASYNC110 - what handlers do
        await asyncio.sleep(0.01)
    return "to nobody"


@app.get("/held")
async def held() -> None:
    await finish.wait()


@app.post("/release")
async def release() -> None:
    finish.set()
    await asyncio.sleep(0)
    finish.clear()


@app.get("/background")
async def background(tasks: BackgroundTasks, held: bool = False) -> str:
    tasks.add_task(finish.wait if held else seen.get)
    return "done"


@app.get("/background-fails")
async def background_fails(tasks: BackgroundTasks) -> str:
    async def fail() -> None:
        raise LookupError("a test")

    tasks.add_task(fail)
    return "done"


@app.get("/context")
async def context() -> str:
    was = seen.get()
    seen.set("inner")
    return was


@app.get("/context/seen")
async def context_seen() -> str:
    return SeesContext.last


@app.websocket("/socket/{room}")
async def socket(websocket: WebSocket, room: str) -> None:
    """Does what the message says."""
    if room == "refused":
        await websocket.close(4403)
    elif room == "denied":
        await websocket.send_denial_response(PlainTextResponse("no", 401))
    elif room == "failed":
        raise LookupError("a test")
    else:
        if room == "slow":
            await asyncio.sleep(0.5)
        await websocket.accept()
        while (message := await websocket.receive_text()) != "close":
            if message == "fail":
                raise LookupError("a test")
            while message == "push":  # without ever looking whether the client says something
                await websocket.send_text(message)
                await asyncio.sleep(0.01)
            await websocket.send_text(message)
        await websocket.close(4001 if room == "private" else 1000)


@app.post("/add/{name}")
async def add(name: str) -> None:
    app.add_api_route(f"/added/{name}/{{number}}", item_added)


async def item_added(number: int) -> int:
    return number


@app.get("/work/{kind}")
async def work(kind: str) -> list[str | int]:
    return do_work(kind)


inner = APIRouter(prefix="/inner")


@inner.get("/{name}")
def nested(name: str) -> str:
    return name


outer = APIRouter(prefix="/outer")
outer.include_router(inner, prefix="/deep")
app.include_router(outer, prefix="/v1")
app.include_router(outer, prefix="/v2")

added = APIRouter()
added.add_route("/plain/{key}", lambda request: PlainTextResponse(request.path_params["key"]))
app.include_router(added, prefix="/with-prefix")
app.add_route("/plain/{key}", lambda request: PlainTextResponse(request.path_params["key"]))

# An application with the middleware of its own, mounted three times: still counted once.
shop = FastAPI()
shop.add_middleware(PrometheusMiddleware)


@shop.get("/orders/{order}")
async def order(order: int) -> int:
    return order


shop.add_route("/plain/{key}", lambda request: PlainTextResponse("shop"))
app.mount("/shop", shop)
app.mount("/again", shop)
app.mount("/tenants/{tenant}", shop)

small = Starlette(routes=[Route("/small/{size:int}", lambda request: PlainTextResponse("small")), Mount("/shop", shop)])
app.mount("/starlette", small)
files = Path(tempfile.mkdtemp(prefix="telemetry-static-"))
(files / "page.txt").write_text("static")
app.mount("/static", StaticFiles(directory=files))
app.router.routes.append(
    Host("{name}.example.org", Starlette(routes=[Route("/hosted", lambda request: PlainTextResponse("hosted"))]))
)
