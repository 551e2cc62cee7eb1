"""A service with many routes and exemplars, to fill a folder with series."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.telemetry.http import PrometheusMiddleware, metrics_endpoint
from tests.telemetry.working import trace


def fine(request: Request) -> PlainTextResponse:
    return PlainTextResponse("fine")


def pid(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(os.getpid()))


app = Starlette(routes=[Route("/pid", pid), *(Route(f"/r{number}", fine) for number in range(200))])
app.add_route("/metrics", metrics_endpoint())
app.add_middleware(PrometheusMiddleware, exclude_paths=("/metrics",), exemplar=trace)
