"""An application as it is written for Starlette 0.27 and a FastAPI of its time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse

from app.telemetry.http import PrometheusMiddleware, metrics_endpoint

Next = Callable[[Request], Awaitable[Response]]

shop = FastAPI()


@shop.middleware("http")
async def guard(request: Request, call_next: Next) -> Response:
    return Response(status_code=401) if request.url.query == "inner=401" else await call_next(request)


@shop.get("/orders/{order}")
async def order(order: int) -> int:
    return order


app = FastAPI(root_path="/api")  # behind a proxy that strips it


@app.middleware("http")
async def first(request: Request, call_next: Next) -> Response:
    return await call_next(request)


@app.middleware("http")
async def second(request: Request, call_next: Next) -> Response:
    response = await call_next(request)
    response.headers["x-second"] = "1"
    return response


app.add_middleware(PrometheusMiddleware, exclude_paths=("/excluded",))
app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)


@app.get("/items/{item_id}")
async def item(item_id: int) -> int:
    return item_id


@app.get("/excluded")
async def excluded() -> None:
    return None


@app.get("/nothing", status_code=204)
async def nothing() -> None:
    return None


@app.get("/fails")
async def fails() -> None:
    raise LookupError("a test")


@app.get("/stream")
async def stream(pieces: int) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"b" * 100
            await asyncio.sleep(0.05)

    return StreamingResponse(body())


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4001)


included = APIRouter(prefix="/inner")
included.add_api_route("/{name}", nothing, status_code=204)
app.include_router(included, prefix="/v1")
app.mount("/shop", shop)
app.mount("/tenants/{tenant}", shop)
