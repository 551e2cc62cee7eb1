#!/usr/bin/env bash
# FastAPI 0.165's own server-sent events (fastapi.sse) and a generator that raises, as one around a language model may.
#
# Guessed: the connection breaks off, so that the client knows that its answer is not whole, as with sse-starlette 3.7 and with
# FastAPI's own JSON lines. Seen: it depends on what the generator did last. One that raises right after an event breaks off;
# one that waited before it raised, for a model or a database that fails, ends in order, with status 200 and its last chunk.
# API clients take half an answer for a whole one; proxies, access logs and metrics of responses have a success. The exception
# leaves the application as an ExceptionGroup.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 sse-starlette==3.7.0 uvicorn==0.54.0 httpx==0.28.1
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
import logging
import threading
import time

import fastapi
import httpx
import sse_starlette
import uvicorn
from fastapi.sse import EventSourceResponse

app, left, seen = fastapi.FastAPI(), [], {}


async def waits():
    yield "Half of"
    await asyncio.sleep(0.1)  # as for a model
    raise KeyError("the other half")


async def raises():
    yield "Half of"
    raise KeyError("the other half")


app.get("/fastapi-sse", response_class=EventSourceResponse)(waits)
app.get("/fastapi-sse-at-once", response_class=EventSourceResponse)(raises)
app.get("/fastapi-json-lines")(waits)
app.get("/sse-starlette")(lambda: sse_starlette.EventSourceResponse(waits()))
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
logging.getLogger("uvicorn.error").addFilter(lambda record: left.append(record.exc_info[0].__name__))
threading.Thread(target=server.run, daemon=True).start()
deadline = time.monotonic() + 60
while not server.started and time.monotonic() < deadline: time.sleep(0.05)
url = "http://127.0.0.1:{1}".format(*server.servers[0].sockets[0].getsockname())
for path in ("sse-starlette", "fastapi-json-lines", "fastapi-sse-at-once", "fastapi-sse"):
    try:
        seen[path] = f"a whole {httpx.get(f'{url}/{path}')}"
    except httpx.RemoteProtocolError:
        seen[path] = "breaks off"
    print(f"{path:<20} expected: breaks off, seen: {seen[path]}")
while len(left) < 4 and time.monotonic() < deadline: time.sleep(0.05)
print("fastapi", fastapi.__version__, left)
assert [*seen.values()] == ["breaks off"] * 3 + ["a whole <Response [200 OK]>"], "the behaviour has changed"
assert left == ["KeyError"] * 2 + ["ExceptionGroup"] * 2, "the behaviour has changed"
PYTHON
