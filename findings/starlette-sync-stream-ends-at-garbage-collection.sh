#!/usr/bin/env bash
# A StreamingResponse of Starlette around an ordinary generator (`def`, not `async def`) whose client leaves.
#
# Guessed: the generator is closed when the response ends, so that its `finally` runs and gives back what it holds: a database
# session, a file, an "in progress" gauge. Seen: an async generator is closed at once. An ordinary one stays suspended in a
# reference cycle until Python's cyclic garbage collection comes by, some hundreds of requests later, or never on an idle
# service. Its `finally` then runs wherever that happens, often on the event loop.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check starlette==1.10.0 uvicorn==0.54.0 httpx==0.28.1
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
import gc
import threading
import time
from importlib.metadata import version

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

ended = []

def ordinary():
    try:
        while True:
            yield time.sleep(0.05) or b"some bytes"
    finally:
        ended.append("closed")

async def asynchronous():
    try:
        while True:
            yield await asyncio.sleep(0.05, b"some bytes")
    finally:
        ended.append("closed")
routes = [Route(f"/{body.__name__}", lambda _, body=body: StreamingResponse(body())) for body in (ordinary, asynchronous)]
server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.1)
port = server.servers[0].sockets[0].getsockname()[1]
seen = {}
for path in ("asynchronous", "ordinary"):
    ended.clear()
    gc.disable()  # what an idle service amounts to
    with httpx.stream("GET", f"http://127.0.0.1:{port}/{path}") as answer:
        next(answer.iter_raw())
    for _ in range(100):
        time.sleep(0 if ended else 0.05)
    seen[path] = list(ended)
    gc.collect()
print("starlette", version("starlette"))
print(f"seconds later, expected both closed; seen: {seen}; after gc.collect(): {ended}")
assert seen == {"asynchronous": ["closed"], "ordinary": []} and ended == ["closed"], "the behaviour has changed"
PYTHON
