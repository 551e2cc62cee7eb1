"""The middleware's options, and two independent applications in one process."""

from pathlib import Path

from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from app.telemetry.exposition import render
from app.telemetry.http import PrometheusMiddleware
from tests.telemetry.serving import Samples, parse, value


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("x" * request.path_params.get("size", 1))


def sizes() -> Starlette:
    return Starlette(routes=[Route("/sizes/{size:int}", answer)])


async def ask(app: Starlette, *paths: str) -> Samples:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for path in paths:
            await client.get(path)
    return parse(render().decode())


async def test_two_applications_in_one_process() -> None:
    """Each with options of its own; nothing of one is counted by the other, and one text tells of both."""
    blue, green = sizes(), sizes()
    blue.add_middleware(PrometheusMiddleware, labels={"service": "blue"}, buckets=(0.5, 2), unmatched="none")
    green.add_middleware(PrometheusMiddleware, labels={"service": "green"}, exclude=("/sizes/3",), version="1.2.3")
    await ask(blue, "/sizes/1", "/sizes/2", "/nowhere")
    samples = await ask(green, "/sizes/1", "/sizes/3", "/nowhere")

    def requests(**labels: str) -> float:
        return value(samples, "http_requests_total", **labels)

    assert requests(service="blue", endpoint="/sizes/{size}", status_code="200") == 2
    assert requests(service="blue", endpoint="none", status_code="404") == 1
    assert requests(service="green", endpoint="/sizes/{size}", status_code="200") == 1
    assert requests(service="green", endpoint="unmatched", status_code="404") == 1
    assert (requests(service="blue"), requests(service="green")) == (3, 2)
    names = {name for name, labels in samples if ("service", "blue") in labels}
    assert names >= {"http_request_duration_seconds_sum", "http_requests_in_progress", "app_info"}
    assert value(samples, "app_info", service="green", version="1.2.3") == 1
    bounds = {
        service: {
            dict(labels)["le"]
            for name, labels in samples
            if name == "http_request_duration_seconds_bucket" and ("service", service) in labels
        }
        for service in ("blue", "green")
    }
    assert bounds["blue"] == {"0.5", "2.0", "+Inf"}
    assert len(bounds["green"]) == 17
    count = "http_request_duration_seconds_bucket"
    assert value(samples, count, service="blue", endpoint="/sizes/{size}", le="+Inf") == 2
    sent = value(samples, "http_response_size_bytes_sum", service="blue", endpoint="/sizes/{size}")
    assert sent == 1 + 2


async def test_in_progress_for_whoever_reads() -> None:
    """Alone in its process the gauge is set when somebody reads it: from within a request, and from a middleware."""
    seen: list[Samples] = []

    async def look(request: Request) -> PlainTextResponse:
        seen.append(parse(render().decode()))
        return PlainTextResponse("seen")

    class Before:
        def __init__(self, app: Starlette) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(parse(render().decode()))
            await self.app(scope, receive, send)

    app = Starlette(routes=[Route("/look/{key}", look)])
    app.add_middleware(Before)  # type: ignore[arg-type]
    app.add_middleware(PrometheusMiddleware, labels={"service": "looking"})
    after = await ask(app, "/look/1", "/look/2")
    assert len(seen) == 4
    for samples in seen:
        assert value(samples, "http_requests_in_progress", service="looking", endpoint="/look/{key}") == 1
    assert value(after, "http_requests_in_progress", service="looking") == 0
    assert value(after, "http_requests_total", service="looking") == 2


async def test_unusual_messages(tmp_path: Path) -> None:
    """A file that the server sends by itself, a body that is not given, one whose size cannot be known."""
    file = tmp_path / "file"
    file.write_bytes(b"y" * 321)
    ends: list[Message] = [
        {"type": "http.response.pathsend", "path": str(file)},
        {"type": "http.response.pathsend", "path": str(tmp_path / "absent")},
        {"type": "http.response.body"},
        {"type": "http.response.body", "body": None},
    ]
    sent: list[Message] = []

    async def sends(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(ends[int(scope["path"])])

    async def receive() -> Message:
        return {"type": "http.request"}

    async def server(message: Message) -> None:
        sent.append(message)

    middleware = PrometheusMiddleware(sends, labels={"service": "unusual"})
    for number in range(len(ends)):
        await middleware({"type": "http", "method": "GET", "path": str(number)}, receive, server)
    assert sent[1::2] == ends
    samples = parse(render().decode())
    assert value(samples, "http_requests_total", service="unusual", status_code="200") == len(ends)
    assert value(samples, "http_response_size_bytes_sum", service="unusual") == 321
    assert value(samples, "http_response_size_bytes_count", service="unusual") == len(ends)
    assert value(samples, "http_requests_in_progress", service="unusual") == 0


async def test_bad_options_are_refused() -> None:
    for options, error in (
        ({"exclude": "/metrics"}, TypeError),
        ({"buckets": (2, 1)}, ValueError),
        ({"buckets": ()}, ValueError),
    ):
        try:
            PrometheusMiddleware(sizes(), **options)
        except error:
            continue
        raise AssertionError(f"{options} were accepted")
