"""The endpoint that a request is counted under, where it is not a simple route of the application."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.telemetry.http.counting import check, moved, one
from tests.telemetry.serving import ROOT, UVICORN, Served, serve

MOUNTED = "tests.telemetry.http.mounted"


@pytest.fixture(scope="module", params=["", "/prefix"], ids=["no root path", "--root-path /prefix"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    options = ("--root-path", request.param) if request.param else ()
    with serve(*UVICORN, f"{MOUNTED}:app", *options) as served:
        yield served


CASES = [
    ("/shown", "/shown", 200),
    ("/shown?outer=401", "/shown", 401),
    ("/api/users/1", "/api/users/{user_id}", 200),
    ("/api/users/1?inner=401", "/api/users/{user_id}", 401),
    ("/api/users/1?outer=401", "/api/users/{user_id}", 401),
    ("/again/users/1?inner=401", "/again/users/{user_id}", 401),
    ("/api/users/1?inner=fails", "/api/users/{user_id}", 500),
    ("/api/nothing", "unmatched", 404),
    ("/api/nothing?inner=401", "unmatched", 401),
    ("/api/nothing?outer=401", "unmatched", 401),
    ("/api/deep/leaf/1", "/api/deep/leaf/{key}", 200),
    ("/again/deep/leaf/1?inner=401", "/again/deep/leaf/{key}", 401),
    ("/again/deep/nothing", "unmatched", 404),
    ("/api/help", "/api/help/{path}", 307),
    ("/api/help/?outer=401", "/api/help/{path}", 401),
    ("/again/help/?inner=401", "/again/help/{path}", 401),
    ("/api/help/", "/api/help/{path}", 200),
    ("/again/help/none.js", "/again/help/{path}", 404),
    ("/spa/", "/spa/{path}", 200),
    ("/", "/{path}", 200),
    ("/elsewhere?outer=401", "/{path}", 401),
    ("/elsewhere", "/{path}", 404),
]


@pytest.mark.parametrize(("path", "endpoint", "status"), CASES, ids=[case[0] for case in CASES])
def test_endpoint(server: Served, path: str, endpoint: str, status: int) -> None:
    before = server.samples()
    assert server.send("GET", path)[0] == status
    check(before, server.samples(), "GET", endpoint, status, exceptions=path.endswith("fails"))


OF_HOSTS = [
    ("pages", "/", "/{path}", 200),
    ("api", "/users/1", "/users/{user_id}", 200),
    ("api", "/users/1?inner=401", "/users/{user_id}", 401),
    ("api", "/nothing", "unmatched", 404),
    ("any", "/users/1?outer=401", "unmatched", 401),  # a route of another host
    ("any", "/packed/users/1?inner=fails", "/packed/users/{user_id}", 500),
    ("any", "/packed/deep/leaf/1?inner=401", "/packed/deep/leaf/{key}", 401),
    ("any", "/routes/x/deep/leaf", "/routes/{shop}/deep/leaf", 200),
    ("any", "/routes/x/deep/none", "unmatched", 404),
    ("any", "/foreign/orders/1", "/foreign/{path}", 200),
    ("any", "/of/x/foreign/orders/1", "/of/{shop}/foreign/{path}", 200),
    ("any", "/of/x/foreign/none?outer=401", "/of/{shop}/foreign/{path}", 401),
    ("any", "/alone/orders/1", "/alone/{path}", 200),
    ("any", "/alone/none", "/alone/{path}", 404),
    ("any", "/rest/1", "/rest/{key}", 200),
    ("any", "/rest/1?inner=401", "/rest/{key}", 401),
    ("any", "/rest/1?outer=401", "/rest/{key}", 401),
    ("any", "/rest/1/", "/rest/{key}", 307),
    ("any", "/rest/1//", "/rest/{key}", 307),
    ("any", "//rest/1", "unmatched", 404),
    ("any", "/nothing?outer=401", "unmatched", 401),
]


def test_hosts_and_mounts_of_all_kinds() -> None:
    with serve(*UVICORN, f"{MOUNTED}:hosts") as server:
        for host, path, endpoint, status in OF_HOSTS:
            before = server.samples()
            assert server.send("GET", path, f"host: {host}.example.org:8000\r\n")[0] == status, path
            check(before, server.samples(), "GET", endpoint, status, exceptions=path.endswith("fails"))


def test_excluded_paths(server: Served) -> None:
    before = server.samples()
    for path in ("/excluded", "/metrics"):
        assert server.send("GET", path)[0] == 200
    assert moved(before, server.samples(), "http_requests_total") == {}


def test_frontends() -> None:
    with serve(*UVICORN, f"{MOUNTED}:whole") as server:
        for path, endpoint, status in (
            ("/", "/{path}", 200),
            ("/none.js", "/{path}", 404),
            ("//none", "/{path}", 404),
            ("/app/", "/app/{path}", 200),
            ("/app/none.js", "/app/{path}", 404),
            ("/included/docs/", "/included/docs/{path}", 200),
            ("/?outer=401", "/{path}", 401),
            ("/app?outer=401", "/app/{path}", 401),
            ("/included/docs/none.js?outer=401", "/included/docs/{path}", 401),
        ):
            before = server.samples()
            assert server.send("GET", path)[0] == status
            check(before, server.samples(), "GET", endpoint, status)


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_body_above_the_limit(chunked: bool) -> None:
    """FastAPI answers 413 outside of all middlewares: the client's fault, and no exception."""
    with serve(*UVICORN, f"{MOUNTED}:limited") as server:
        for path in ("/reads", "/parses", *(() if chunked else ("/ignores",))):
            before = server.samples()
            if chunked:
                chunk = "c8\r\n" + "x" * 200 + "\r\n0\r\n"
                headers = "transfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n" + chunk
                status, _ = server.send("POST", path, headers)
            else:
                status, _ = server.send("POST", path, "content-type: application/json\r\n", body="x" * 200)
            assert status == 413
            assert moved(before, server.samples(), "http_requests_total") == one("POST", path, 413)
            assert moved(before, server.samples(), "http_exceptions_total") == {}


def test_a_service_without_fastapi_does_not_import_it() -> None:
    code = "import sys, app.telemetry.http; sys.exit('fastapi' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
