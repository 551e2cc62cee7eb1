"""The middleware's options, and two independent applications in one process."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from httpx2 import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from app.telemetry.exposition import pieces, render
from app.telemetry.exposition.metrics import SharedMetric
from app.telemetry.http import PrometheusMiddleware, exchange, metrics, middleware
from app.telemetry.http.metrics import DURATION_BUCKETS
from tests.telemetry.serving import Samples, parse, value

# Beside them, other tests of this process may have left thousands of series, which take long to parse.
METRICS = [metric.name for metric in vars(metrics).values() if isinstance(metric, SharedMetric)]
NAMES = {*METRICS, *(f"{name}_total" for name in METRICS)}


def scrape() -> Samples:
    """The HTTP metrics of this process."""
    return parse(render(names=NAMES).decode())


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("x" * request.path_params.get("size", 1))


def sizes() -> Starlette:
    return Starlette(routes=[Route("/sizes/{size:int}", answer)])


async def ask(app: Starlette, *paths: str) -> Samples:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for path in paths:
            await client.get(path)
    return scrape()


async def test_two_applications_in_one_process() -> None:
    """Each with options of its own; neither counts requests of the other, and one text reports both."""
    blue, green = sizes(), sizes()
    options: dict[str, Any] = {"buckets": (0.5, 2), "unmatched_endpoint": "none"}
    blue.add_middleware(PrometheusMiddleware, const_labels={"service": "blue"}, **options)
    options = {"exclude_paths": ("/sizes/3",), "version": "1.2.3"}
    green.add_middleware(PrometheusMiddleware, const_labels={"service": "green"}, **options)
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
    assert bounds["green"] == {*map(str, DURATION_BUCKETS), "+Inf"}
    count = "http_request_duration_seconds_bucket"
    assert value(samples, count, service="blue", endpoint="/sizes/{size}", le="+Inf") == 2
    sent = value(samples, "http_response_size_bytes_sum", service="blue", endpoint="/sizes/{size}")
    assert sent == 1 + 2


async def test_in_progress_is_set_when_it_is_read() -> None:
    """Alone in its process the gauge is set when it is read: from within a request, and from a middleware."""
    seen: list[Samples] = []

    async def look(request: Request) -> PlainTextResponse:
        seen.append(scrape())
        return PlainTextResponse("seen")

    class Before:
        def __init__(self, app: Starlette) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scrape())
            await self.app(scope, receive, send)

    app = Starlette(routes=[Route("/look/{key}", look)])
    app.add_middleware(Before)  # type: ignore[arg-type]
    app.add_middleware(PrometheusMiddleware, const_labels={"service": "looking"})
    after = await ask(app, "/look/1", "/look/2")
    assert len(seen) == 4
    for samples in seen:
        assert value(samples, "http_requests_in_progress", service="looking", endpoint="/look/{key}") == 1
    assert value(after, "http_requests_in_progress", service="looking") == 0
    assert value(after, "http_requests_total", service="looking") == 2


async def test_a_request_that_ends_while_a_scrape_is_made() -> None:
    """Wherever it ends, no scrape shows it neither in progress nor counted."""
    names = {"http_requests_in_progress", "http_requests_total"}
    counting = PrometheusMiddleware(answer_when_released, const_labels={"service": "cut"})
    _, every = pieces(names=names)
    parts = len(list(every))
    for ends_after in range(parts + 1):
        released = asyncio.Event()
        scope = {"type": "http", "method": "GET", "path": "/", "released": released}
        request = asyncio.create_task(counting(scope, nothing_to_receive, nobody_to_send_to))
        await asyncio.sleep(0)
        lines = []
        _, text = pieces(names=names)
        for part, piece in enumerate(text):
            if part == ends_after:
                released.set()
                await request
            lines.append(piece if isinstance(piece, str) else piece())
        released.set()
        await request
        samples = parse("".join(lines))
        counted = value(samples, "http_requests_total", service="cut") - ends_after  # those before
        in_progress = value(samples, "http_requests_in_progress", service="cut")
        assert (in_progress, counted) in {(1, 0), (1, 1), (0, 1)}, ends_after
    assert parts > 2


async def answer_when_released(scope: Scope, receive: Receive, send: Send) -> None:
    await scope["released"].wait()
    await PlainTextResponse("released")(scope, receive, send)


async def nothing_to_receive() -> Message:
    raise AssertionError


async def nobody_to_send_to(message: Message) -> None:
    return None


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

    counting = PrometheusMiddleware(sends, const_labels={"service": "unusual"})
    for number in range(len(ends)):
        await counting({"type": "http", "method": "GET", "path": str(number)}, receive, server)
    assert sent[1::2] == ends
    samples = scrape()
    assert value(samples, "http_requests_total", service="unusual", status_code="200") == len(ends)
    assert value(samples, "http_response_size_bytes_sum", service="unusual") == 321
    assert value(samples, "http_response_size_bytes_count", service="unusual") == len(ends)
    assert value(samples, "http_requests_in_progress", service="unusual") == 0


async def test_bad_options_are_refused() -> None:
    for options, error in (
        ({"exclude_paths": "/metrics"}, TypeError),
        ({"buckets": (2, 1)}, ValueError),
        ({"buckets": ()}, ValueError),
        ({"const_labels": {"method": "x"}}, ValueError),
        ({"const_labels": {"le": "x"}}, ValueError),
        ({"const_labels": {"my-label": "x"}}, ValueError),
        ({"const_labels": {"__mine": "x"}}, ValueError),
        ({"const_labels": {1: "x"}}, ValueError),
    ):
        try:
            PrometheusMiddleware(sizes(), **options)
        except error:
            continue
        raise AssertionError(f"{options} were accepted")


async def test_a_label_that_is_no_text() -> None:
    app, number = sizes(), cast(str, 1)
    app.add_middleware(PrometheusMiddleware, const_labels={"shard": number})
    assert value(await ask(app, "/sizes/1"), "http_requests_total", shard="1") == 1


async def test_an_exemplar_a_second(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of each bucket and counter; one that fails keeps nothing from being counted."""
    now, asked = [1000.0], []
    for module in (middleware, exchange):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])

    def exemplar(scope: Scope) -> dict[str, Any]:
        asked.append(scope["path"])
        return {"path": scope["path"] if scope["path"] != "/sizes/4" else 4}

    async def lasting(request: Request) -> PlainTextResponse:
        now[0] += 3 if request.path_params["size"] == 2 else 0
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/sizes/{size:int}", lasting)])
    options: dict[str, Any] = {"exemplar": exemplar, "exclude_paths": ("/none",)}
    app.add_middleware(PrometheusMiddleware, const_labels={"service": "exemplary"}, **options)
    await ask(app, "/none", *["/sizes/1"] * 5)
    assert asked == ["/sizes/1"]
    await ask(app, "/sizes/2", "/sizes/3")  # in a bucket of its own; then three seconds later
    assert asked == ["/sizes/1", "/sizes/2", "/sizes/3"]
    text = render(accept="application/openmetrics-text; version=1.0.0").decode()
    buckets = [line for line in text.splitlines() if "exemplary" in line and " # {" in line and "_bucket" in line]
    assert [line.partition(" # ")[2].partition(" 1")[0].split()[:2] for line in buckets] == [
        ['{path="/sizes/3"}', "0.0"],
        ['{path="/sizes/2"}', "3.0"],
    ]
    now[0] += 1
    samples = await ask(app, "/sizes/4")
    assert value(samples, "http_requests_total", service="exemplary", status_code="200") == 8
    assert "an exemplar was not stored" in caplog.text
    assert "not counted" not in caplog.text


async def test_500_begins_at_0() -> None:
    """So that rate() sees the first one, too."""
    app = sizes()
    app.add_middleware(PrometheusMiddleware, const_labels={"service": "healthy"})
    statuses = {
        dict(labels)["status_code"]: number
        for (name, labels), number in (await ask(app, "/sizes/1")).items()
        if name == "http_requests_total" and ("service", "healthy") in labels
    }
    assert statuses == {"200": 1, "500": 0}


async def test_what_never_failed_has_no_series_of_failures() -> None:
    async def sometimes(request: Request) -> PlainTextResponse:
        return PlainTextResponse("", int(request.path_params["status"]))

    app = Starlette(routes=[Route("/{status:int}", sometimes)])
    app.add_middleware(PrometheusMiddleware, const_labels={"service": "failing"}, max_series=8)
    failed = "http_failed_request_duration_seconds_count"
    samples = await ask(app, "/200", "/404")
    assert not {n for n, labels in samples if n.startswith("http_failed") and ("service", "failing") in labels}
    assert value(await ask(app, "/500"), failed, service="failing", endpoint="overflow") == 1, "8 are in use"


async def test_a_mounted_application_with_its_own_middleware_is_no_second_application() -> None:
    inner, outer = sizes(), sizes()
    inner.add_middleware(PrometheusMiddleware, const_labels={"service": "mounted"}, version="2.0.0")
    outer.mount("/inner", inner)
    outer.add_middleware(PrometheusMiddleware, const_labels={"service": "outer"}, version="1.0.0")
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    websocket = {"type": "websocket", "path": "/inner/live", "headers": [], "query_string": b"", "root_path": ""}
    await outer(cast(Scope, websocket), receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    samples = await ask(outer, "/inner/sizes/1")
    assert value(samples, "http_requests_total", service="outer", endpoint="/inner/sizes/{size}") == 1
    assert value(samples, "app_info", service="outer") == 1
    assert not [labels for name, labels in samples if name == "app_info" and ("service", "mounted") in labels]
