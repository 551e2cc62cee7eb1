"""Every request is counted exactly once, as what it was, through a real server."""

import json
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.running import wait_until
from tests.telemetry.http.counting import check, idle, moved, one
from tests.telemetry.serving import UVICORN, Served, serve, value


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serve(*UVICORN, "tests.telemetry.sample:app") as served:
        yield served


CASES = [
    ("GET", "/items/1", "/items/{item_id}", 200),
    ("GET", "/items/none", "/items/{item_id}", 422),
    ("HEAD", "/only-head", "/only-head", 200),
    ("OPTIONS", "/items/1", "/items/{item_id}", 405),
    ("DELETE", "/items/1", "/items/{item_id}", 405),
    ("GET", "/nowhere", "unmatched", 404),
    ("GET", "/teapot", "/teapot", 418),
    ("GET", "/says-nothing/x", "/says-nothing/{path}", 500),
    ("GET", "/cancelled", "/cancelled", 499),
    ("GET", "/stream/3", "/stream/{pieces}", 200),
    ("GET", "/background", "/background", 200),
    ("GET", "/v1/outer/deep/inner/x", "/v1/outer/deep/inner/{name}", 200),
    ("GET", "/v2/outer/deep/inner/x", "/v2/outer/deep/inner/{name}", 200),
    ("GET", "/plain/1", "/plain/{key}", 200),
    ("GET", "/with-prefix/plain/1", "/with-prefix/plain/{key}", 200),
    ("GET", "/shop/orders/1", "/shop/orders/{order}", 200),
    ("GET", "/again/orders/1", "/again/orders/{order}", 200),
    ("GET", "/tenants/acme/orders/1", "/tenants/{tenant}/orders/{order}", 200),
    ("GET", "/tenants/acme/plain/1", "/tenants/{tenant}/plain/{key}", 200),
    ("GET", "/tenants/acme/none", "unmatched", 404),
    ("GET", "/starlette/small/5", "/starlette/small/{size}", 200),
    ("GET", "/starlette/small/five", "unmatched", 404),
    ("GET", "/starlette/shop/orders/1", "/starlette/shop/orders/{order}", 200),
    ("GET", "/static/page.txt", "/static/{path}", 200),
    ("GET", "/static/absent.txt", "/static/{path}", 404),
    ("QUERY", "/queried", "/queried", 200),
    ("GET", "/fails-before-it-starts", "/fails-before-it-starts", 503),
    ("GET", "/items/1/", "/items/{item_id}", 307),
    ("GET", "/shop/orders/1/", "/shop/orders/{order}", 307),
]


@pytest.mark.parametrize(("method", "path", "endpoint", "status"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_counted_once(server: Served, method: str, path: str, endpoint: str, status: int) -> None:
    before = server.samples()
    answered, _ = server.send(method, path)
    assert answered == (500 if status == 499 else status)  # nobody is there to see a 499
    after = idle(server)
    check(before, after, method, endpoint, status)


def test_route_of_a_host(server: Served) -> None:
    before = server.samples()
    assert server.send("GET", "/hosted", "host: shop.example.org\r\n")[0] == 200
    check(before, server.samples(), "GET", "/hosted", 200)


def test_preflight_that_a_middleware_answers(server: Served) -> None:
    """The router never sees it; it still belongs to the route."""
    headers = "origin: https://friend.example\r\naccess-control-request-method: GET\r\n"
    before = server.samples()
    assert server.send("OPTIONS", "/tenants/acme/orders/5", headers)[0] == 200
    check(before, server.samples(), "OPTIONS", "/tenants/{tenant}/orders/{order}", 200)


def test_exception_before_the_headers(server: Served) -> None:
    before = server.samples()
    assert server.send("GET", "/fails")[0] == 500
    after = server.samples()
    check(before, after, "GET", "/fails", 500, exceptions=1)
    assert value(after, "http_exceptions_total", endpoint="/fails", exception="LookupError") >= 1


def test_exception_after_the_headers(server: Served) -> None:
    """The client has seen a 200, and not the end of the body: that is a failure."""
    before = server.samples()
    assert server.send("GET", "/fails-late")[0] == 200
    check(before, server.samples(), "GET", "/fails-late", 500, exceptions=1)


def test_exception_in_a_background_task(server: Served) -> None:
    """The response was complete: the exception is counted, the request stays what it was."""
    before = server.samples()
    assert server.send("GET", "/background-fails")[0] == 200
    wait_until(lambda: moved(before, server.samples(), "http_exceptions_total"))
    after = server.samples()
    check(before, after, "GET", "/background-fails", 200, exceptions=1)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/stream/100000?pause=0.01", "/stream/{pieces}"), ("/waits-for-leave", "/waits-for-leave")],
    ids=["stream", "handler that looks"],
)
def test_client_that_leaves(server: Served, path: str, endpoint: str) -> None:
    before = server.samples()
    with server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        wait_until(lambda: value(server.samples(), "http_requests_in_progress", endpoint=endpoint) == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    after = idle(server)
    check(before, after, "GET", endpoint, 499)


def test_client_that_leaves_when_it_has_all(server: Served) -> None:
    """What the head announced was sent: the request keeps its status, no matter which side closes the connection."""
    before = server.samples()
    with server.connect() as connection:
        connection.sendall(b"GET /announced HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"b" * 100):
            answer += connection.recv(65536)
    check(before, idle(server), "GET", "/announced", 200)


@pytest.mark.parametrize(("kinds", "name"), [(1, "LookupError"), (2, "ExceptionGroup")])
def test_exception_groups_name_what_failed(server: Served, kinds: int, name: str) -> None:
    before = server.samples()
    assert server.send("GET", f"/fails-in-groups?kinds={kinds}")[0] == 500
    [labels] = moved(before, server.samples(), "http_exceptions_total")
    assert ("exception", name) in labels


def test_in_progress_while_streams_and_handlers_last(server: Served) -> None:
    before = server.samples()
    connections = [server.connect() for _ in range(3)]
    for connection in connections[:2]:
        connection.sendall(b"GET /held HTTP/1.1\r\nhost: localhost\r\n\r\n")
    connections[2].sendall(b"GET /stream/100000?pause=0.01 HTTP/1.1\r\nhost: localhost\r\n\r\n")

    def shown() -> tuple[float, float]:
        now = server.samples()
        return tuple(value(now, "http_requests_in_progress", endpoint=e) for e in ("/held", "/stream/{pieces}"))  # type: ignore[return-value]

    wait_until(lambda: shown() == (2, 1))
    server.send("POST", "/release")
    wait_until(lambda: shown() == (0, 1))
    connections[2].close()
    wait_until(lambda: shown() == (0, 0))
    for connection in connections:
        connection.close()
    assert sum(moved(before, server.samples(), "http_requests_total").values()) == 4


def test_durations(server: Served) -> None:
    """A stream lasts to its last byte, its start is measured separately; a background task is not part of a request."""
    before = server.samples()
    server.send("GET", "/stream/4?pause=0.3")
    server.send("GET", "/background?held=true")
    ended = "http_request_duration_seconds_count"
    wait_until(
        lambda: (
            ("endpoint", "/background")
            in {pair for labels in moved(before, server.samples(), ended) for pair in labels}
        )
    )
    assert server.send("POST", "/release")[0] == 200  # what the task has waited for
    after = server.samples()
    spent = moved(before, after, "http_request_duration_seconds_sum")
    started = moved(before, after, "http_response_start_seconds_sum")
    stream = frozenset({("method", "GET"), ("endpoint", "/stream/{pieces}")})
    pauses = 4 * (0.3 - 0.001)  # the event loop's timers count whole milliseconds, and end early by a part of one
    assert spent[stream] >= pauses
    assert started[stream] <= spent[stream] - pauses + 0.1


def test_sizes(server: Served) -> None:
    before = server.samples()
    server.send("POST", "/items/1", body="c" * 12345)
    server.send("GET", "/stream/7")
    server.send("HEAD", "/only-head")
    after = server.samples()
    received = moved(before, after, "http_request_size_bytes_sum")
    sent = moved(before, after, "http_response_size_bytes_sum")
    assert received == {frozenset({("method", "POST"), ("endpoint", "/items/{item_id}")}): 12345}
    assert sent == {
        frozenset({("method", "POST"), ("endpoint", "/items/{item_id}")}): len("12345"),
        frozenset({("method", "GET"), ("endpoint", "/stream/{pieces}")}): 700,
    }


def test_context_variables_survive(server: Served) -> None:
    """Into the endpoint and out of it."""
    assert json.loads(server.get("/context")[0]) == "outer"
    assert json.loads(server.get("/context/seen")[0]) == "inner"


def test_routes_added_after_the_start(server: Served) -> None:
    before = server.samples()
    for name in ("one", "two", "three"):
        assert server.send("POST", f"/add/{name}")[0] == 200
        assert server.send("GET", f"/added/{name}/7")[0] == 200
    counted = moved(before, server.samples(), "http_requests_total")
    assert counted == {
        **dict.fromkeys(one("POST", "/add/{name}", 200), 3.0),
        **one("GET", "/added/one/{number}", 200),
        **one("GET", "/added/two/{number}", 200),
        **one("GET", "/added/three/{number}", 200),
    }


def test_excluded_path(server: Served) -> None:
    before = server.samples()
    assert server.send("GET", "/excluded")[0] == 200
    assert moved(before, server.samples(), "http_requests_total") == {}


def test_keep_alive_and_pipelining(server: Served) -> None:
    """Hundreds of requests on one connection, sent before the first answer is read."""
    paths = ["/items/1", "/nowhere", "/stream/2", "/teapot"] * 50
    before = server.samples()
    with server.connect() as connection:
        requests = [f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n" for path in paths]
        requests[-1] = requests[-1].replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
        connection.sendall("".join(requests).encode())
        answers = b""
        while data := connection.recv(65536):
            answers += data
    assert answers.count(b"HTTP/1.1 ") == len(paths)
    assert moved(before, server.samples(), "http_requests_total") == {
        key: 50.0
        for part in (
            one("GET", "/items/{item_id}", 200),
            one("GET", "unmatched", 404),
            one("GET", "/stream/{pieces}", 200),
            one("GET", "/teapot", 418),
        )
        for key in part
    }


KINDS = {
    "GET /items/1": ("GET", "/items/{item_id}", 200),
    "GET /items/x": ("GET", "/items/{item_id}", 422),
    "POST /items/1": ("POST", "/items/{item_id}", 200),
    "PATCH /items/1": ("PATCH", "/items/{item_id}", 405),
    "GET /nowhere": ("GET", "unmatched", 404),
    "GET /fails": ("GET", "/fails", 500),
    "GET /fails-late": ("GET", "/fails-late", 500),
    "GET /stream/3": ("GET", "/stream/{pieces}", 200),
    "GET /tenants/a/orders/1": ("GET", "/tenants/{tenant}/orders/{order}", 200),
    "GET /again/orders/1/": ("GET", "/again/orders/{order}", 307),
    "HEAD /only-head": ("HEAD", "/only-head", 200),
    "GET /cancelled": ("GET", "/cancelled", 499),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=20))
def test_sum_over_all_series_is_what_was_sent(server: Served, sequence: list[str]) -> None:
    before = server.samples()
    expected: dict[frozenset[tuple[str, str]], float] = {}
    for request in sequence:
        server.send(*request.split())
        for key in one(*KINDS[request]):
            expected[key] = expected.get(key, 0) + 1
    after = idle(server)
    assert moved(before, after, "http_requests_total") == expected
    for name in ("http_request_duration_seconds", "http_request_size_bytes", "http_response_size_bytes"):
        assert sum(moved(before, after, f"{name}_count").values()) == len(sequence)
    buckets = moved(before, after, "http_request_duration_seconds_bucket")
    assert sum(n for labels, n in buckets.items() if ("le", "+Inf") in labels) == len(sequence)


def test_random_paths_and_hosts_add_no_series(server: Served) -> None:
    """10,000 paths and 1,000 Host headers, twenty at a time on a kept connection."""
    server.send("GET", "/nowhere")
    series = server.samples().keys()
    before = server.samples()
    with server.connect() as connection:
        for start in range(0, 10_000, 20):
            numbers = range(start, start + 20)
            connection.sendall(
                b"".join(b"GET /%x/%d HTTP/1.1\r\nhost: h%d.example\r\n\r\n" % (n * n, n, n % 1000) for n in numbers)
            )
            answers = b""
            while answers.count(b'{"detail":"Not Found"}') < 20:
                answers += connection.recv(65536)
    assert server.samples().keys() == series
    assert moved(before, server.samples(), "http_requests_total") == dict.fromkeys(
        one("GET", "unmatched", 404), 10000.0
    )


def test_random_methods_and_the_limit() -> None:
    """A server that accepts any method (h11) gets 1,000 of them; then a limit of label combinations is reached."""
    command = (*UVICORN, "--http", "h11", "tests.telemetry.sample:app")
    with serve(*command, environment={"SAMPLE_MAX_SERIES": "40"}) as server:
        server.send("M0", "/items/1")
        series = server.samples().keys()
        with server.connect() as connection:
            for number in range(1000):
                connection.sendall(f"M{number}X /items/1 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
                answer = b""
                while b'{"detail":"Method Not Allowed"}' not in answer:
                    answer += connection.recv(65536)
        assert server.samples().keys() == series
        assert value(server.samples(), "http_requests_total", method="OTHER", status_code="405") == 1001

        for path, *_ in {case[1]: case for case in CASES if case[0] == "GET" and case[3] == 200}.items():
            server.send("GET", path)
        server.send("GET", "/fails")
        after = server.samples()
        sent = 1001 + len({case[1] for case in CASES if case[0] == "GET" and case[3] == 200}) + 1
        assert value(after, "http_requests_total") == sent
        overflow = value(after, "http_requests_total", endpoint="overflow")
        assert 0 < overflow == value(after, "http_metrics_overflow_total")
        assert len({labels for name, labels in after if name == "http_requests_total"}) < 15
        assert server.log.read_text().count("label combinations") == 1
