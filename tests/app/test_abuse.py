"""What strangers send: no server error, no new series, no unbounded memory, and others are still served.

`make fuzz` sets FUZZ_SECONDS and so tries ten times as much. A table at the end of the run counts what was tried.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import string
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from urllib.parse import quote

import httpx2
import psutil
import psycopg
import pytest

from app.api.dependencies import new_api_key
from app.limits import BODY_BYTES
from app.server import BoundedHttpProtocol
from tests import servers
from tests.app.conftest import BadInput, sign_up
from tests.servers import Postgres, Running, wait_until

TIMES = 10 if "FUZZ_SECONDS" in os.environ else 1
REQUEST_TIMEOUT = 2  # seconds, of the service under test
STANDARD_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "OTHER"}
Tried = Callable[[str, Counter[int | str]], None]


@pytest.fixture(scope="module")
def service(postgres: Postgres) -> Iterator[Running]:
    environment = postgres.environment(postgres.create_database())
    limits = {
        "APP_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT),
        "APP_MAX_CONNECTIONS": "100",
        "APP_SIGN_UPS_PER_MINUTE": "0",
    }
    with servers.app({**environment, **limits}) as running:
        yield running


@pytest.fixture(autouse=True)
def _unharmed(service: Running, client: httpx2.Client, bad_input: BadInput) -> Iterator[None]:
    """After each abuse: the same series, no server error, no traceback, little memory, and others are still served."""
    main = psutil.Process(service.process.pid)
    memory = main.memory_info().rss
    known = endpoints(client)
    yield
    assert endpoints(client) <= known | set(client.get("/openapi.json").json()["paths"]) | {
        "unmatched",
        "/openapi.json",
        "/metrics",
    }
    with sign_up(client) as user:
        assert user.post("/items", json={"title": "Still here"}).status_code == 201
    text = client.get("/metrics").text
    assert set(re.findall(r'^http_requests_total{.*?method="(.*?)"', text, re.MULTILINE)) <= STANDARD_METHODS
    assert not re.findall(r'^http_requests_total{.*status_code="5.*} (?!0$)', text, re.MULTILINE)
    assert "Traceback" not in service.log, service.log
    grown = (main.memory_info().rss - memory) / 2**20
    bad_input.memory = max(bad_input.memory, grown)
    assert grown < 100
    # Itself is the only one being served.
    wait_until(lambda: in_progress(client) == {"/metrics": 1})


@pytest.fixture
def tried(bad_input: BadInput) -> Tried:
    return bad_input.tried


def endpoints(client: httpx2.Client) -> set[str]:
    text = client.get("/metrics").text
    return set(re.findall(r'^http_requests_total{.*?endpoint="(.*?)"', text, re.MULTILINE))


def in_progress(client: httpx2.Client) -> dict[str, float]:
    text = client.get("/metrics").text
    found = re.findall(r'^http_requests_in_progress{.*?endpoint="(.*?)".*?} (\S+)', text, re.MULTILINE)
    return {endpoint: float(value) for endpoint, value in found if float(value)}


@contextmanager
def connection(service: Running, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as raw:
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(60)
        raw.connect(("127.0.0.1", service.port))
        yield raw


def send(service: Running, request: bytes) -> int | str:
    """Send bytes as they are; the status code of the answer, or "closed" for none."""
    with connection(service) as raw:
        with suppress(ConnectionError):  # the answer may be there before all was sent
            raw.sendall(request)
        return status(raw)


def status(raw: socket.socket) -> int | str:
    """The status code of the next answer, or "closed"."""
    head = b""
    while b"\r\n" not in head:
        try:
            piece = raw.recv(4096)
        except ConnectionError:
            piece = b""
        if not piece:
            return "closed"
        head += piece
    return int(head.split(b" ", 2)[1])


def test_paths_that_nobody_made(service: Running, tried: Tried) -> None:
    dice = random.Random(1)
    letters = string.ascii_letters + string.digits + "/.-_~%:@!$&'()*+,;=?"
    paths = [
        "//",
        "/%00",
        "/%ff%fe",
        "/items/%00",
        "/../../etc/passwd",
        "/items/..%2f..",
        "/" + "a" * 60_000,
        "*",
        "/?" * 99,
    ]
    paths += [
        "/items/" + "9" * 400,
        "/items/-1",
        "/items/1e3",
        "/items/%F0%9F%A6%89",
        "http://elsewhere/items",
        "/items/",
        "",
    ]
    paths += ["/" + "".join(dice.choices(letters, k=dice.randrange(1, 40))) for _ in range(500 * TIMES)]
    answers: Counter[int | str] = Counter(
        send(service, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()) for path in paths
    )
    tried("paths", answers)
    assert set(answers) <= {200, 400, 401, 404, 414, 422}


def test_methods_that_nobody_knows(service: Running, tried: Tried) -> None:
    dice = random.Random(2)
    methods = ["PROPFIND", "PURGE", "QUERY", "TRACE", "CONNECT", "OPTIONS", "get", "", "G\x00T", "PRI", "M-SEARCH", "é"]
    methods += ["".join(dice.choices(string.ascii_uppercase, k=dice.randrange(3, 20))) for _ in range(200 * TIMES)]
    answers: Counter[int | str] = Counter(
        send(service, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        for method in methods
        for path in ("/items", "/nowhere")
    )
    tried("methods", answers)
    assert set(answers) <= {400, 404, 405, "closed"}


def test_headers_that_make_no_sense(service: Running, tried: Tried) -> None:
    start = b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    heads = {
        "many headers": b"X-A: b\r\n" * 100_000,
        "a large header": b"X-A: " + b"b" * 5_000_000 + b"\r\n",
        "a large header name": b"X" * 1_000_000 + b": b\r\n",
        "a header that never ends": b"X-A: " + b"b" * 5_000_000,
        "no colon": b"X-A\r\n",
        "control characters": b"X-A: \x01\x02\x7f\r\n",
        "not ASCII": b"X-A: \xff\xfe\r\nAuthorization: Bearer \xff\r\nX-Request-ID: " + b"\xff" * 8 + b"\r\n",
        "negative length": b"Content-Length: -1\r\n",
        "length that is no number": b"Content-Length: lots\r\n",
        "length of a thousand digits": b"Content-Length: " + b"9" * 1000 + b"\r\n",
        "two lengths": b"Content-Length: 1\r\nContent-Length: 2\r\n",
        "length and chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "unknown encoding": b"Transfer-Encoding: gzip\r\n",
        "an encoding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "folded": b"X-A: b\r\n c\r\n",
        "upgrade": b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "upgrade to HTTP/2": b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        "expectation": b"Expect: 100-continue\r\n",
        "unknown expectation": b"Expect: miracles\r\n",
        "content type with a NUL": b"Content-Type: application/json; a=\x00\r\n",
        "odd content type": b"Content-Type: application/json; charset=\xff\xfe;;;=\r\nContent-Length: 2\r\n",
    }
    dice = random.Random(4)
    random_heads = [
        b"".join(
            dice.randbytes(dice.randrange(1, 20)) + b": " + dice.randbytes(dice.randrange(60)) + b"\r\n" for _ in "abc"
        )
        for _ in range(200 * TIMES)
    ]
    answers: Counter[int | str] = Counter(
        send(service, start + b"Connection: close\r\n" + head + b"\r\n{}") for head in (*heads.values(), *random_heads)
    )
    answers[send(service, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))] += 1  # TLS
    answers[send(service, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")] += 1
    answers[send(service, b"GET / HTTP/9.9\r\n\r\n")] += 1
    answers[send(service, os.urandom(10_000))] += 1
    tried("headers, and what is no HTTP at all", answers)
    assert set(answers) <= {100, 400, 413, 422, 431, "closed"}


def test_headers_are_limited_before_all_of_them_have_come(service: Running, tried: Tried) -> None:
    """Also behind a chunked body, where nobody expects any more."""
    start = b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    few, many = b"X-A: b\r\n" * 10, b"X-A: b\r\n" * 100_000
    answers: Counter[int | str] = Counter()
    assert send(service, start + body + few + b"\r\n") == 422, "read to its end, and judged by what it is"
    for _ in range(10):
        answers[send(service, start + body + many + b"\r\n")] += 1
    tried("headers behind the body", answers)
    assert set(answers) <= {400, 431, "closed"}


def test_bodies_that_are_too_large(service: Running, tried: Tried) -> None:
    limit = BODY_BYTES["/users"]
    start = b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answers: Counter[int | str] = Counter()
    with connection(service) as raw:  # refused before anything of it is sent
        raw.sendall(start + b"Content-Length: 100000000000\r\n\r\n")
        answers[status(raw)] += 1
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    endless = [
        b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 200,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * limit * 2,
    ]
    endless += [f"Content-Length: {limit + 1}\r\n\r\n".encode() + b"x" * (limit + 1)]
    for body in endless:
        answers[send(service, start + body)] += 1
    tried("large bodies", answers)
    assert set(answers) <= {413, "closed"}
    assert answers[413] >= 2
    # As large as allowed is read, and judged by what it is.
    body = json.dumps({"name": "x" * (limit - 12)}).encode()
    assert len(body) == limit
    assert send(service, start + f"Content-Length: {limit}\r\n\r\n".encode() + body) == 422


def test_bytes_that_are_no_text(service: Running, user: httpx2.Client, tried: Tried) -> None:
    dice = random.Random(3)
    pieces = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"a\xff\xfeb"]
    pieces += [dice.randbytes(dice.randrange(1, 30)) for _ in range(20 * TIMES)]
    key = user.headers["Authorization"].encode()

    def request(target: bytes, headers: bytes = b"", body: bytes = b"") -> bytes:
        start = (b"POST " if body else b"GET ") + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        return start + headers + f"\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    signed_in = b"Authorization: " + key
    json_headers = signed_in + b"\r\nContent-Type: application/json"
    answers: Counter[int | str] = Counter()
    for piece in pieces:
        escaped = quote(piece).encode()
        for bad in (
            request(b"/items/" + piece, signed_in),
            request(b"/items/" + escaped, signed_in),
            request(b"/items?after=" + piece, signed_in),
            request(b"/items?after=" + escaped, signed_in),
            request(b"/items", b"Authorization: Bearer " + piece),
            request(b"/items", signed_in + b"\r\nX-Request-ID: " + piece),
            request(b"/items", json_headers, b'{"title": "' + piece + b'"}'),
            request(b"/items", json_headers, b'{"' + piece + b'": "x"}'),
            request(b"/items", json_headers + b"; charset=" + piece, b"{}"),
            request(b"/items", json_headers, piece),
        ):
            answers[send(service, bad)] += 1
    tried("bytes that are no UTF-8", answers)
    assert set(answers) <= {200, 400, 401, 404, 422, "closed"}


def test_json_that_hurts(client: httpx2.Client, tried: Tried) -> None:
    numbers = [b"9" * 100_000, b"-" + b"9" * 5000, b"1e999999", b"NaN", b"-Infinity", b"1" + b"0" * 400, b"0.1e-99999"]
    bodies = [
        b"[" * 500_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"name":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\xff\xfe\x00",
        b'{"name": "\xff\xfe"}',
        b'{"name": "\xc0\x80"}',
        b'{"name": "\xed\xa0\x80"}',
        b'{"name": "\\u0000"}',
        b'{"name": "a\x00b"}',
        b'{"name": "\\ud800"}',
        b'{"\\ud800": 1, "name": "x"}',
        b'{"\\u0000": 1}',
        b"\xef\xbb\xbf{}",
        b'{"name": "x", "name": 1}',
        b'{"name": {"$ne": null}}',
        b"null",
        b'"text"',
        b"",
        b" " * 1_000_000,
        *(b'{"name": %s}' % number for number in numbers),
    ]
    answers: Counter[int | str] = Counter()
    for content_type in ("application/json", "application/json; charset=utf-16", "application/vnd.api+json"):
        for body in bodies:
            answer = client.post("/users", content=body, headers={"Content-Type": content_type})
            answers[answer.status_code] += 1
    for kind in (b"text/plain", b"multipart/form-data", b"multipart/form-data; boundary=\xff", b"x", b"/", b""):
        answer = client.post("/users", content=b'{"name": "x"}', headers={b"Content-Type": kind})
        answers[answer.status_code] += 1
    tried("JSON bodies", answers)
    assert set(answers) <= {400, 413, 422}


def test_numbers_and_texts_at_the_edge_of_what_postgresql_takes(client: httpx2.Client, tried: Tried) -> None:
    edges = [
        0,
        -1,
        1,
        2**31,
        2**53 - 1,
        2**53,
        2**63 - 1,
        2**63,
        2**64,
        10**100,
        "1.0",
        "1e5",
        "%00",
        "\u0661",
        "0x10",
        "1_000",
        "+1",
        " 1",
    ]
    answers: Counter[int | str] = Counter()
    with sign_up(client) as user:
        for edge in edges:
            for method, path in (
                ("GET", "/items/{}"),
                ("DELETE", "/items/{}"),
                ("GET", "/items?after={}"),
                ("GET", "/items?limit={}"),
                ("GET", "/conversations/{}"),
            ):
                answers[user.request(method, path.format(edge)).status_code] += 1
            answers[user.post("/chat", json={"message": "x", "conversation_id": edge}).status_code] += 1
        for text in (
            "\x00",
            "a\x00",
            "%00",
            "\x7f\x80",
            "\ufffe\uffff",
            "😀" * 200,
            "e" + "\u0301" * 199,
            "\u202e",
            "'; DROP TABLE users; --",
        ):
            answers[user.post("/items", json={"title": text}).status_code] += 1
    tried("edge values", answers)
    assert set(answers) <= {200, 201, 404, 422}


def test_slow_clients_are_let_go_and_hold_up_nobody(service: Running, client: httpx2.Client, tried: Tried) -> None:
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
    tried("answers that nobody reads", Counter({"closed": 20}))
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
