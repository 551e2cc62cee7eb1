"""Clients that are slow, do not read, leave in the middle, send ahead or are too many."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection

import httpx2
import psutil
import psycopg
import pytest

from app.api.dependencies import new_api_key
from app.server import BoundedHttpProtocol
from tests.app.abuse.raw import TIMES, Tried, connection, in_progress, send, status
from tests.app.conftest import sign_up
from tests.running import Running, wait_until
from tests.servers import Postgres


def test_slow_clients_are_disconnected_and_block_no_one(service: Running, client: httpx2.Client, tried: Tried) -> None:
    answers: Counter[int | str] = Counter()
    with (
        connection(service) as silent,
        connection(service) as slow_head,
        connection(service) as slow_body,
        connection(service) as dripping,
    ):
        slow_head.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        slow_body.sendall(
            b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        dripping.sendall(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
        assert status(dripping) == 405  # and goes on to send the body, a byte at a time
        assert client.get("/readyz").status_code == 200
        answers[status(slow_body)] += 1
        answers[status(slow_head)] += 1
        answers[status(silent)] += 1
        answers[_drip_until_closed(dripping)] += 1
    tried("slow clients", answers)
    assert answers == {"closed": 3, 408: 1}


def test_clients_that_do_not_read_are_cut_off(
    service: Running, client: httpx2.Client, user: httpx2.Client, tried: Tried
) -> None:
    for _ in range(40):  # more than the buffers between here and there
        user.post("/items", json={"title": "Large", "description": "é" * 10_000})
    request = f"GET /items?limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: {user.headers['Authorization']}\r\n\r\n"
    with connection(service, receive_buffer=4096) as raw:
        raw.sendall(request.encode() * 20)  # pipelined
        main = psutil.Process(service.process.pid)
        address = raw.getsockname()
        wait_until(lambda: not any(peer.raddr == address for peer in main.net_connections()))
    tried("unread responses", Counter({"closed": 20}))
    assert client.get("/readyz").status_code == 200


def test_more_pipelined_requests_than_allowed_are_cut_off(service: Running, user: httpx2.Client, tried: Tried) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    message = b'{"message": "A story", "stream": true}'
    stream = (
        f"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {user.headers['Authorization']}\r\nContent-Length: {len(message)}\r\n\r\n"
    ).encode() + message
    allowed = BoundedHttpProtocol.MAX_PIPELINED

    def answers(sent: bytes) -> Counter[int | str]:
        received = b""
        with connection(service) as raw, suppress(ConnectionError):
            raw.sendall(sent)
            while piece := raw.recv(2**16):
                received += piece
        return Counter(map(int, re.findall(rb"HTTP/1\.1 (\d+) ", received)))

    total = answers(request * allowed + last)
    assert total == {200: 1 + allowed}, "one is served while the others wait"
    with_body = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 16384\r\n\r\n" + bytes(16384)
    in_turn = answers(with_body * 200 + last)
    assert in_turn == {405: 200, 200: 1}, (
        "of those whose body nobody reads 17 come by a read, the next when they are served"
    )
    total += in_turn
    assert answers(stream.replace(b"Host: x", b"Connection: close\r\nHost: x") + request * 9) == {200: 1}
    for first in (request, stream):  # neither answered to the end, nor with a 400 inside of a response
        cut_off = answers(first + request * 200 + last)
        assert set(cut_off) <= {200}
        assert cut_off[200] < 200
        total += cut_off + Counter[int | str]({"closed": 202 - cut_off[200]})
    tried("pipelined requests", total)


def test_half_open_streams_end(service: Running, user: httpx2.Client, client: httpx2.Client, tried: Tried) -> None:
    """Clients that vanish in the middle of a stream, by a reset as when a machine loses power."""
    body = b'{"message": "A story", "stream": true}'
    request = (
        f"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {user.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    answers: Counter[int | str] = Counter()
    for _ in range(10 * TIMES):
        with connection(service) as raw:
            raw.sendall(request)
            answers[status(raw)] += 1
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tried("streams left by reset", answers)
    assert set(answers) == {200}
    wait_until(lambda: "/chat" not in in_progress(client))
    text = client.get("/metrics").text
    assert not re.search(r"^llm_requests_in_progress{.*} [^0]", text, re.MULTILINE)


def test_more_connections_than_allowed_are_refused_and_forgotten(service: Running, tried: Tried) -> None:
    held: list[socket.socket] = []

    def one_more() -> int | str:
        """What it is answered beside 120 new others; the service ends those that say nothing for too long."""
        for raw in held:
            raw.close()
        held.clear()
        held.extend(socket.create_connection(("127.0.0.1", service.port)) for _ in range(120))
        return send(service, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    try:
        wait_until(lambda: one_more() == 503)
        tried("connections at once", Counter({"open": len(held), 503: 1}))
    finally:
        for raw in held:
            raw.close()
    wait_until(lambda: httpx2.get(f"{service.url}/healthz", timeout=60).status_code == 200)


def test_ten_thousand_users_make_no_series(
    service: Running, postgres: Postgres, client: httpx2.Client, tried: Tried
) -> None:
    users = 10_000

    def series() -> set[str]:
        lines = client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    keys = [new_api_key() for _ in range(users)]
    dsn = postgres.dsn(service.server.environment["DATABASE_NAME"])
    with (
        psycopg.connect(dsn) as connection,
        connection.cursor().copy("COPY users (name, api_key_hash) FROM STDIN") as copy,
    ):
        for number, (_, key_hash) in enumerate(keys):
            copy.write_row((f"User {number}", key_hash))

    def visit(own: list[tuple[str, bytes]]) -> Counter[int | str]:
        answers: Counter[int | str] = Counter()
        with closing(HTTPConnection("127.0.0.1", service.port, timeout=60)) as raw:
            for key, _ in own:
                raw.request("GET", "/users/me", headers={"Authorization": f"Bearer {key}"})
                answer = raw.getresponse()
                answer.read()
                answers[answer.status] += 1
        return answers

    with sign_up(client) as user:
        user.get("/users/me")
    before = series()
    with ThreadPoolExecutor(4) as pool:
        answers = sum(pool.map(visit, (keys[part::4] for part in range(4))), Counter[int | str]())
    tried("signed-in users", answers)
    assert answers == {200: users}
    assert series() == before
    active = re.search(r'^active_users{window="1h"} (\S+)', client.get("/metrics").text, re.MULTILINE)
    assert active
    assert float(active[1]) == pytest.approx(users, rel=0.05)


def _drip_until_closed(raw: socket.socket) -> str:
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        try:
            raw.sendall(b"x")
        except OSError:
            return "closed"
        time.sleep(0.1)
    return "still open"
