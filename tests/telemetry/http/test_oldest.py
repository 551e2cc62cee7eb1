"""On Starlette 0.27, whose stacked middlewares report the client as gone once a response is complete."""

from collections.abc import Iterator

import pytest
from websocket import create_connection

from tests.running import wait_until
from tests.telemetry.environments import environment, run
from tests.telemetry.http.counting import check, idle, moved
from tests.telemetry.serving import UVICORN, Served, serve


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with environment(tmp_path_factory.mktemp("oldest") / "venv", lock="starlette-0.27") as python:
        assert run(str(python), "-c", "import starlette; print(starlette.__version__)").startswith("0.27.")
        with serve(*UVICORN, "tests.telemetry.http.oldest:app", python=python) as served:
            yield served


CASES = [
    ("GET", "/items/1", "/items/{item_id}", 200),
    ("GET", "/items/none", "/items/{item_id}", 422),
    ("HEAD", "/items/1", "/items/{item_id}", 405),
    ("GET", "/nothing", "/nothing", 204),
    ("GET", "/stream?pieces=3", "/stream", 200),
    ("GET", "/v1/inner/x", "/v1/inner/{name}", 204),
    ("GET", "/shop/orders/1", "/shop/orders/{order}", 200),
    ("GET", "/shop/orders/1?inner=401", "/shop/orders/{order}", 401),
    ("GET", "/tenants/acme/orders/1?inner=401", "/tenants/{tenant}/orders/{order}", 401),
    ("GET", "/tenants/acme/none", "unmatched", 404),
    ("GET", "/none", "unmatched", 404),
    ("GET", "/fails", "/fails", 500),
]


@pytest.mark.parametrize(("method", "path", "endpoint", "status"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_counted_once(server: Served, method: str, path: str, endpoint: str, status: int) -> None:
    before = server.samples()
    assert server.send(method, path)[0] == status
    check(before, idle(server), method, endpoint, status, exceptions=status == 500)


def test_a_client_that_leaves(server: Served) -> None:
    before = server.samples()
    with server.connect() as connection:
        connection.sendall(b"GET /stream?pieces=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(100)
    wait_until(lambda: moved(before, server.samples(), "http_requests_total"))
    check(before, idle(server), "GET", "/stream", 499)


def test_excluded_paths(server: Served) -> None:
    before = server.samples()
    assert server.send("GET", "/excluded")[0] == 200
    assert moved(before, server.samples(), "http_requests_total") == {}


def test_a_websocket(server: Served) -> None:
    before = server.samples()
    create_connection(f"ws://127.0.0.1:{server.port}/socket", timeout=60).recv_data()
    wait_until(lambda: moved(before, server.samples(), "websocket_closed_total"))
    assert moved(before, server.samples(), "websocket_closed_total") == {
        frozenset({("endpoint", "/socket"), ("code", "4xxx")}): 1
    }
