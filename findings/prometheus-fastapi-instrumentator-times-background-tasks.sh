#!/usr/bin/env bash
# prometheus-fastapi-instrumentator 8.1: what it reports of an answer with a background task, and of a stream that breaks off.
#
# Guessed: http_request_duration_seconds is the time a client waits for its answer, and a stream that fails half-way is no 2xx.
# Seen: the duration goes on until the background task has ended, so that an endpoint which answers at once and sends a mail
# afterwards looks slow and breaks its latency objective. And the status is the one that was sent first: a stream whose generator
# raises, and whose client sees the connection break, is a 2xx, with no exception anywhere. starlette_exporter 0.24 does the
# opposite of both: it times the answer alone and counts the broken stream as a 500, and a failed background task too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check prometheus-fastapi-instrumentator==8.1.0 \
    starlette-exporter==0.24.0 fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
from importlib.metadata import version

import httpx
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator
from starlette_exporter import PrometheusMiddleware

registry = CollectorRegistry()
def service():
    app = FastAPI()
    @app.get("/mail")
    async def mail(tasks: BackgroundTasks):
        tasks.add_task(asyncio.sleep, 2)
    @app.get("/stream")
    async def stream():
        async def body():
            yield b"The answer begins"
            raise RuntimeError("the provider is gone")
        return StreamingResponse(body())
    return app

async def ask(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.get("/mail")
        await client.get("/stream")

one, other = service(), service()
Instrumentator(registry=registry).instrument(one)
other.add_middleware(PrometheusMiddleware, app_name="service")
for app in (one, other):
    asyncio.run(ask(app))
seconds = registry.get_sample_value("http_request_duration_seconds_sum", {"handler": "/mail", "method": "GET"})
broken = registry.get_sample_value("http_requests_total", {"handler": "/stream", "method": "GET", "status": "2xx"})
mail = {"app_name": "service", "method": "GET", "path": "/mail", "status_code": "200"}
stream = mail | {"path": "/stream", "status_code": "500"}
other_seconds = REGISTRY.get_sample_value("starlette_request_duration_seconds_sum", mail)
other_broken = REGISTRY.get_sample_value("starlette_requests_total", stream)
print(version("prometheus-fastapi-instrumentator"), f"an answer with a task of 2 s after it: {seconds:.1f} s; a stream that broke off, counted as 2xx: {broken}")
print(f"starlette-exporter: {other_seconds:.1f} s, counted as 500: {other_broken}")
assert seconds > 1.9 and broken == 1 and other_seconds < seconds - 1 and other_broken == 1, "the behaviour has changed"
PYTHON
