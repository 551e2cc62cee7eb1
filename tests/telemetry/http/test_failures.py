"""What is counted of exceptions: the status that the client was sent, and the class of what really failed."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from websocket import create_connection

from tests.running import wait_until
from tests.telemetry.http.counting import moved, one
from tests.telemetry.serving import UVICORN, Served, serve


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serve(*UVICORN, "tests.telemetry.http.failing:app") as served:
        yield served


CASES = [
    # A layer around the application answers, or thinks so.
    ("GET", "/plain?send=own", 429, 429, None),
    ("GET", "/plain?send=http", 500, 500, "HTTPException"),
    ("POST", "/reads?receive=http", 429, 429, None),
    ("POST", "/reads-in-a-group?receive=http", 500, 500, "HTTPException"),
    # FastAPI's body limit; where the response has started already, it is cut.
    ("POST", "/reads-in-a-group", 413, 413, None),
    ("POST", "/reads-and-fails", 500, 500, "ExceptionGroup"),
    ("POST", "/echo", 200, 413, None),
    # In the application.
    ("GET", "/cancelled-and-failed", 500, 500, "LookupError"),
    ("GET", "/waits-for-what-is-cancelled", 500, 500, "CancelledError"),
    ("GET", "/dependency", 200, 200, "HTTPException"),
    ("GET", "/stream", 200, 500, "HTTPException"),
    ("GET", "/events", 200, 200, "LookupError"),  # FastAPI ends the response in order, and only then raises
]


@pytest.mark.parametrize(
    ("method", "path", "sent", "counted", "exception"), CASES, ids=[f"{case[0]} {case[1]}" for case in CASES]
)
def test_an_exception(server: Served, method: str, path: str, sent: int, counted: int, exception: str | None) -> None:
    before = server.samples()
    chunk = f"transfer-encoding: chunked\r\n\r\n5dc\r\n{'x' * 1500}\r\n0\r\n" if method == "POST" else ""
    assert server.send(method, path, chunk)[0] == sent
    endpoint = path.partition("?")[0]
    expected = {} if exception is None else {name(method, endpoint, exception): 1.0}
    wait_until(lambda: moved(before, server.samples(), "http_exceptions_total") == expected)
    after = server.samples()
    assert moved(before, after, "http_requests_total") == one(method, endpoint, counted)
    assert moved(before, after, "http_exceptions_total") == expected


@pytest.mark.parametrize(
    ("path", "exception"), [("/socket", "LookupError"), ("/socket-that-waits", "CancelledError")], ids=["group", "wait"]
)
def test_a_websocket(server: Served, path: str, exception: str) -> None:
    before = server.samples()
    with closing(create_connection(f"ws://127.0.0.1:{server.port}{path}", timeout=60)):
        expected = {name("WEBSOCKET", path, exception): 1.0}
        wait_until(lambda: moved(before, server.samples(), "http_exceptions_total") == expected)


def test_a_websocket_whose_handler_awaits_what_it_cancels_when_the_client_leaves(server: Served) -> None:
    """As any other exception of a handler whose WebSocket has ended, that is how handlers end."""
    before = server.samples()
    path = "/socket-that-cleans-up"
    with closing(create_connection(f"ws://127.0.0.1:{server.port}{path}", timeout=60)):
        pass
    wait_until(lambda: moved(before, server.samples(), "websocket_closed_total"))
    with closing(create_connection(f"ws://127.0.0.1:{server.port}/socket", timeout=60)):  # which fails after that
        expected = {name("WEBSOCKET", "/socket", "LookupError"): 1.0}
        wait_until(lambda: moved(before, server.samples(), "http_exceptions_total").items() >= expected.items())
    assert moved(before, server.samples(), "http_exceptions_total") == expected


def name(method: str, endpoint: str, exception: str) -> frozenset[tuple[str, str]]:
    return frozenset({("method", method), ("endpoint", endpoint), ("exception", exception)})
