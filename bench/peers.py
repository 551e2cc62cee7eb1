"""The applications that bench_http measures: the same routes, each under another way to count requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def plain(peer: str, routes: int) -> FastAPI:
    """A FastAPI application with that many routes (`/route0/{item_id}`...), not yet counted by the peer."""
    app = FastAPI(**OPTIONS.get(peer, dict)())

    async def item(item_id: int) -> dict[str, int]:
        return {"item_id": item_id}

    for number in range(routes):
        app.get(f"/route{number}/{{item_id}}")(item)
    return app


def application(peer: str, routes: int) -> ASGIApp:
    """The same, counted by the peer."""
    return PEERS[peer](plain(peer, routes))


def bare(app: FastAPI) -> ASGIApp:
    return app


def sightline(app: FastAPI) -> ASGIApp:
    from app.telemetry.http import PrometheusMiddleware, metrics_endpoint

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)
    return app


def sightline_exemplars(app: FastAPI) -> ASGIApp:
    """As the reference service has it: a request's id leads from a slow bucket to its lines in the log."""
    from app.telemetry.http import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware, exemplar=lambda scope: {"request_id": "0123456789abcdef"})
    return app


class Cached:
    """The reference floor: as cheap as prometheus_client can be used, children looked up once and kept.

    It counts what one would by hand: requests by method, route and status, their duration by method and route, and
    those in progress by method. No sizes, no response start, no exceptions, no disconnects; a stream counts as soon as
    the application has sent it all.
    """

    def __init__(self, app: ASGIApp) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.app = app
        names = ("method", "endpoint")
        self.requests = Counter("requests", "Requests.", (*names, "status_code"))
        self.duration = Histogram("duration_seconds", "Duration.", names, buckets=BUCKETS)
        self.in_progress = Gauge("in_progress", "In progress.", ("method",), multiprocess_mode="livesum")
        self.gauges: dict[str, Any] = {}
        self.found: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, status = scope["method"], 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        gauge = self.gauges.get(method)
        if gauge is None:
            gauge = self.gauges[method] = self.in_progress.labels(method)
        gauge.inc()
        began = time.perf_counter()
        try:
            await self.app(scope, receive, counted)
        finally:
            elapsed = time.perf_counter() - began
            gauge.dec()
            path = getattr(scope.get("route"), "path", "unmatched")
            children = self.found.get((method, path, status))
            if children is None:
                counter = self.requests.labels(method, path, str(status))
                children = self.found[method, path, status] = counter, self.duration.labels(method, path)
            children[0].inc()
            children[1].observe(elapsed)


def cached(app: FastAPI) -> ASGIApp:
    return Cached(app)


def naive(app: FastAPI) -> ASGIApp:
    """What a first draft looks like."""
    from prometheus_client import Counter, Histogram
    from starlette.middleware.base import BaseHTTPMiddleware

    requests = Counter("requests", "Requests.", ("method", "endpoint", "status_code"))
    duration = Histogram("duration_seconds", "Duration.", ("method", "endpoint"), buckets=BUCKETS)

    async def count(request: Any, call_next: Any) -> Any:
        began = time.perf_counter()
        response = await call_next(request)
        path = getattr(request.scope.get("route"), "path", "unmatched")
        requests.labels(request.method, path, response.status_code).inc()
        duration.labels(request.method, path).observe(time.perf_counter() - began)
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=count)
    return app


def instrumentator(app: FastAPI) -> ASGIApp:
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator().instrument(app).expose(app)
    return app


def starlette_exporter(app: FastAPI) -> ASGIApp:
    from starlette_exporter import PrometheusMiddleware, handle_metrics

    app.add_middleware(PrometheusMiddleware, group_paths=True, filter_unhandled_paths=False)
    app.add_route("/metrics", handle_metrics)
    return app


def starlette_prometheus(app: FastAPI) -> ASGIApp:
    from starlette_prometheus import PrometheusMiddleware, metrics

    app.add_middleware(PrometheusMiddleware, filter_unhandled_paths=False)
    app.add_route("/metrics", metrics)
    return app


def aioprometheus(app: FastAPI) -> ASGIApp:
    from aioprometheus.asgi.middleware import MetricsMiddleware

    app.add_middleware(MetricsMiddleware)
    return app


def _meter_provider() -> Any:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider

    return MeterProvider([PrometheusMetricReader()])


def opentelemetry(app: FastAPI) -> ASGIApp:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.trace import NoOpTracerProvider

    FastAPIInstrumentor.instrument_app(app, meter_provider=_meter_provider(), tracer_provider=NoOpTracerProvider())
    return app


PEERS: dict[str, Callable[[FastAPI], ASGIApp]] = {
    "bare": bare,
    "Sightline": sightline,
    "Sightline, with exemplars": sightline_exemplars,
    "cached children": cached,
    "naive BaseHTTPMiddleware": naive,
    "prometheus-fastapi-instrumentator": instrumentator,
    "starlette_exporter": starlette_exporter,
    "starlette-prometheus": starlette_prometheus,
    "aioprometheus": aioprometheus,
    "opentelemetry-instrumentation-fastapi": opentelemetry,
    "FastAPI's own telemetry": bare,
}
OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {  # of FastAPI()
    "FastAPI's own telemetry": lambda: {
        "telemetry": {"meter_provider": _meter_provider(), "tracing": False, "logs": False, "operation_spans": False}
    },
}
MULTIPROCESS = (  # count over several workers
    "bare",
    "Sightline",
    "Sightline, with exemplars",
    "cached children",
    "naive BaseHTTPMiddleware",
    "prometheus-fastapi-instrumentator",
    "starlette_exporter",
    "starlette-prometheus",
)
