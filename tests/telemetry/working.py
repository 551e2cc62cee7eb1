"""A service with metrics of its own, without FastAPI, whose import is most of a worker's start.

tests/telemetry/sample.py has the same metrics and the same endpoint.
"""

import asyncio
import os

from prometheus_client import Counter, Gauge, Histogram
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Scope

from app.telemetry import exposition
from app.telemetry.http import PrometheusMiddleware, metrics_endpoint

WORK = Counter("work", "Counted by the application.", ["kind"])
WORKER_PID = Gauge("worker_pid", "Of each worker.")
LIVE = Gauge("live", "One per living worker.", multiprocess_mode="livesum")
HIGHEST = Gauge("highest", "Highest worker.", multiprocess_mode="livemax")
LAST = Gauge("last", "Set last.", multiprocess_mode="mostrecent")
TIMES = Histogram("times_seconds", "Observed by the application.", buckets=(1, 2))

LIVE.set(1)


def trace(scope: Scope) -> dict[str, str] | None:
    """The exemplar of a request with a header for it."""
    for name, value in scope["headers"]:
        if name == b"x-trace":
            return {"trace_id": value.decode("latin-1")}
    return None


def do_work(kind: str) -> list[str | int]:
    WORK.labels(kind).inc()
    TIMES.observe(1.5)
    WORKER_PID.set(os.getpid())
    HIGHEST.set(exposition.worker())
    LAST.set(os.getpid())
    return [exposition.worker(), os.getpid(), str(exposition.directory())]


async def work(request: Request) -> JSONResponse:
    return JSONResponse(do_work(request.path_params["kind"]))


async def held(request: Request) -> JSONResponse:
    await asyncio.Event().wait()
    raise AssertionError("nothing sets it")


app = Starlette(routes=[Route("/work/{kind}", work), Route("/held", held), Route("/metrics", metrics_endpoint())])
app.add_middleware(PrometheusMiddleware)
