"""WebSockets through a real server: handshakes, how many are open, how they end."""

from collections.abc import Iterator

import pytest
from websocket import ABNF, WebSocket, WebSocketBadStatusException, create_connection

from tests.running import wait_until
from tests.telemetry.http.counting import moved
from tests.telemetry.serving import GUNICORN, UVICORN, Samples, Served, serve, value

APP = "tests.telemetry.sample:app"
ENDPOINT = ("endpoint", "/socket/{room}")


@pytest.fixture(scope="module", params=[(*UVICORN, APP), (*UVICORN, APP, "--workers", "2")], ids=["one", "two workers"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serve(*request.param) as served:
        yield served


def connect(server: Served, room: str) -> WebSocket:
    return create_connection(f"ws://127.0.0.1:{server.port}/socket/{room}", timeout=60)


def opened(server: Served) -> float:
    return value(server.samples(), "websocket_connections_open")


def check(before: Samples, after: Samples, outcome: str, code: str | None = None, exceptions: int = 0) -> None:
    """One handshake with this outcome and, where it was accepted, one end."""
    assert moved(before, after, "websocket_connections_total") == {frozenset({ENDPOINT, ("outcome", outcome)}): 1}
    ends = {} if code is None else {frozenset({ENDPOINT, ("code", code)}): 1}
    assert moved(before, after, "websocket_closed_total") == ends
    assert sum(moved(before, after, "websocket_connection_duration_seconds_count").values()) == len(ends)
    failed = {frozenset({("method", "WEBSOCKET"), ENDPOINT, ("exception", "LookupError")}): 1} if exceptions else {}
    assert moved(before, after, "http_exceptions_total") == failed
    assert moved(before, after, "http_requests_total") == {}


@pytest.mark.parametrize(("room", "says", "code"), [("public", "close", "1000"), ("private", "close", "4xxx")])
def test_closed_by_the_application(server: Served, room: str, says: str, code: str) -> None:
    before = server.samples()
    socket = connect(server, room)
    socket.send("hello")
    assert socket.recv() == "hello"
    wait_until(lambda: opened(server) == 1)
    socket.send(says)
    assert socket.recv_data()[0] == ABNF.OPCODE_CLOSE
    wait_until(lambda: opened(server) == 0)
    check(before, server.samples(), "accepted", code)


@pytest.mark.parametrize(("how", "code"), [("frame", "1001"), ("no frame", "1006")])
def test_closed_by_the_client(server: Served, how: str, code: str) -> None:
    before = server.samples()
    socket = connect(server, "public")
    wait_until(lambda: opened(server) == 1)
    if how == "frame":
        socket.close(status=1001)
    else:
        assert socket.sock is not None
        socket.sock.close()
    wait_until(lambda: opened(server) == 0)
    ends = moved(before, server.samples(), "websocket_closed_total")
    seen = dict(next(iter(ends)))["code"]
    assert seen in (code, "1005"), "servers differ in 1005 and 1006"
    check(before, server.samples(), "accepted", seen)


@pytest.mark.parametrize(("how", "codes"), [("frame", {"1001", "1005"}), ("no frame", {"1005", "1006"})])
def test_closed_by_the_client_while_the_application_sends(server: Served, how: str, codes: set[str]) -> None:
    """Sending fails then, which is no failure of the application."""
    before = server.samples()
    socket = connect(server, "public")
    socket.send("push")
    assert socket.recv() == "push"
    assert socket.sock is not None
    if how == "frame":
        socket.send_close(1001)
    socket.sock.close()
    wait_until(lambda: moved(before, server.samples(), "websocket_closed_total") and opened(server) == 0)
    code = dict(next(iter(moved(before, server.samples(), "websocket_closed_total"))))["code"]
    assert code in codes
    check(before, server.samples(), "accepted", code)


def test_abandoned(server: Served) -> None:
    before = server.samples()
    with server.connect() as connection:
        connection.sendall(
            b"GET /socket/slow HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    wait_until(lambda: moved(before, server.samples(), "websocket_connections_total"))
    check(before, server.samples(), "abandoned")


def test_an_exception(server: Served) -> None:
    before = server.samples()
    socket = connect(server, "public")
    socket.send("fail")
    wait_until(lambda: moved(before, server.samples(), "websocket_closed_total") and opened(server) == 0)
    check(before, server.samples(), "accepted", "1011", exceptions=1)


@pytest.mark.parametrize(("room", "status", "outcome"), [("refused", 403, "refused"), ("denied", 401, "refused")])
def test_refused(server: Served, room: str, status: int, outcome: str) -> None:
    before = server.samples()
    with pytest.raises(WebSocketBadStatusException) as refusal:
        connect(server, room)
    assert refusal.value.status_code == status
    check(before, server.samples(), outcome)


def test_an_exception_before_the_handshake(server: Served) -> None:
    before = server.samples()
    with pytest.raises(WebSocketBadStatusException) as refusal:
        connect(server, "failed")
    assert refusal.value.status_code == 500
    check(before, server.samples(), "failed", exceptions=1)


def test_no_such_route(server: Served) -> None:
    before = server.samples()
    for number in range(20):
        with pytest.raises(WebSocketBadStatusException):
            create_connection(f"ws://127.0.0.1:{server.port}/nowhere/{number}", timeout=60)
    key = frozenset({("endpoint", "unmatched"), ("outcome", "refused")})
    assert moved(before, server.samples(), "websocket_connections_total") == {key: 20}


def test_gunicorn() -> None:
    with serve(*GUNICORN, APP) as server:
        before = server.samples()
        socket = connect(server, "public")
        wait_until(lambda: opened(server) == 1)
        socket.send("close")
        wait_until(lambda: opened(server) == 0)
        check(before, server.samples(), "accepted", "1000")
