"""Malformed requests: paths, methods, headers, bodies and values of every kind."""

from __future__ import annotations

import json
import os
import random
import string
from collections import Counter
from urllib.parse import quote

import httpx2

from app.limits import BODY_BYTES
from tests.app.abuse.raw import TIMES, Tried, connection, send, status
from tests.app.conftest import sign_up
from tests.running import Running


def test_malformed_paths(service: Running, tried: Tried) -> None:
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


def test_unknown_methods(service: Running, tried: Tried) -> None:
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
    """Also after a chunked body, where no more headers are expected."""
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


def test_bytes_that_are_not_text(service: Running, user: httpx2.Client, tried: Tried) -> None:
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


def test_hostile_json(client: httpx2.Client, tried: Tried) -> None:
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
