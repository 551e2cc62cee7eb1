"""HTTP metrics of a FastAPI or Starlette application, and the /metrics endpoint."""

from collections.abc import Awaitable, Callable
from time import perf_counter

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS = Counter("http_requests_total", "Requests answered.", ["method", "endpoint", "status_code"])
DURATION = Histogram("http_request_duration_seconds", "Seconds to the last byte.", ["method", "endpoint"])
IN_PROGRESS = Gauge(
    "http_requests_in_progress", "Requests being answered.", ["method", "endpoint"], multiprocess_mode="livesum"
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


class PrometheusMiddleware:
    """Count and time every HTTP request: `app.add_middleware(PrometheusMiddleware)`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        status = 500
        start = perf_counter()

        async def counting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counting_send)
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "path_format", "unmatched")
            REQUESTS.labels(method, endpoint, str(status)).inc()
            DURATION.labels(method, endpoint).observe(perf_counter() - start)


def metrics_endpoint(*, token_file: str | None = None) -> Callable[[Request], Awaitable[Response]]:
    """The handler of GET /metrics: `app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)`."""

    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(REGISTRY), media_type=content_type)

    return metrics
