#!/usr/bin/env bash
# FastAPI 0.165's own server-sent events and sse-starlette 3.7, around a model that is slow to begin.
#
# Guessed: the first byte of the body is the first event, so that a time to first byte, in a middleware, a proxy, a load test or a
# probe, says how long users waited for the first word. Seen: the status and the headers go out at once, and after 15 s of silence
# a comment (": ping") keeps the connection alive. So that time is 0 s by the headers, and never above 15 s by the body, whether
# the model needs 20 s or two minutes: a percentile stops at 15.0 and an alert above it is silent. Only who reads events knows. A
# client's read timeout, on which the SDKs' timeouts rest, starts anew with every ping as well. (The interval is 1 s here.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 sse-starlette==3.7.0 \
    uvicorn==0.54.0 httpx==0.28.1
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
import threading
import time
from collections.abc import AsyncIterator
from importlib.metadata import version

import fastapi.routing
import fastapi.sse
import httpx
import sse_starlette
import uvicorn

defaults = fastapi.routing._PING_INTERVAL, sse_starlette.EventSourceResponse.DEFAULT_PING_INTERVAL
fastapi.routing._PING_INTERVAL = sse_starlette.EventSourceResponse.DEFAULT_PING_INTERVAL = 1
app = fastapi.FastAPI()


@app.get("/fastapi", response_class=fastapi.sse.EventSourceResponse)
async def own() -> AsyncIterator[str]:
    await asyncio.sleep(3.5)
    yield "word"


@app.get("/sse-starlette")
async def other() -> sse_starlette.EventSourceResponse:
    return sse_starlette.EventSourceResponse(own())


server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.1)
port = server.servers[0].sockets[0].getsockname()[1]
print("fastapi", version("fastapi"), "sse-starlette", version("sse-starlette"), "pings after, by default:", *defaults, "s")
for path in ("fastapi", "sse-starlette"):
    began, seen = time.monotonic(), {}
    with httpx.stream("GET", f"http://127.0.0.1:{port}/{path}", timeout=2) as answer:  # no single read takes longer
        seen["headers"] = time.monotonic() - began
        for line in answer.iter_lines():
            seen.setdefault("data" if "data" in line else "byte", time.monotonic() - began)
    print(f"{path}: expected 3.5 s for all; seen:", {what: round(when, 1) for what, when in seen.items()})
    assert seen["headers"] < seen["byte"] < 2.5 and seen["data"] > 3.4, "the behaviour has changed"
assert defaults == (15, 15), "the behaviour has changed"
PYTHON
