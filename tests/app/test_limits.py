"""The limits themselves: what is refused or cut off, how much many clients can hold at once, and who is served."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx2
import psutil
import pytest

from app.limits import HELD_BODY_BYTES, MAX_URL_BYTES, json_excess
from app.server import BoundedHttpProtocol
from tests import servers
from tests.app.conftest import sign_up
from tests.app.cost import MEMORY, Cost
from tests.running import Running, wait_until
from tests.servers import Postgres


@contextmanager
def connections(service: Running, number: int, segment: int | None = None) -> Iterator[list[socket.socket]]:
    """Clients that have room for little; with small segments (bytes) the service's kernel holds 0.1 MB, not 3 MB."""
    with ExitStack() as ends:
        opened = []
        for _ in range(number):
            raw = ends.enter_context(socket.socket())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if segment:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            raw.settimeout(60)
            raw.connect(("127.0.0.1", service.port))
            opened.append(raw)
        yield opened


PATIENT = {"APP_SIGN_UPS_PER_MINUTE": "0", "APP_REQUEST_TIMEOUT": "3600", "DATABASE_POOL_TIMEOUT": "3600"}


@pytest.mark.attack("many clients that hold what is large", tried=400)
def test_large_endless_bodies_do_not_exhaust_a_worker(postgres: Postgres) -> None:
    """The service has more patience with them than the test; it finds all of them at once, as after a busy moment."""
    size = 2**20 - 100
    head = f"POST /chat HTTP/1.1\r\nHost: any\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    body = head.encode() + b" " * (size - 10)
    message = {"message": "word " * 2**15, "stream": False}
    with (
        servers.app({**postgres.environment(postgres.create_database()), **PATIENT}) as service,
        httpx2.Client(base_url=service.url, timeout=60) as client,
        sign_up(client) as user,
    ):
        cost = Cost(service)
        with connections(service, 400) as all_of_them:
            service.process.send_signal(signal.SIGSTOP)
            sent = [raw.send(body[: 2**18], socket.MSG_DONTWAIT) for raw in all_of_them]  # what the kernel takes
            service.process.send_signal(signal.SIGCONT)
            for raw, start in zip(all_of_them, sent, strict=True):
                with suppress(ConnectionError):  # refused while the rest is still sent
                    raw.sendall(body[start:])
            assert user.post("/items", json={"title": "A small body"}).status_code == 201
            wait_until(lambda: user.post("/chat", json=message).headers.get("retry-after") == "1")
            memory = cost.look()[1]
            assert memory < HELD_BODY_BYTES + 3 * MEMORY, "400 would hold 400 MiB"
        wait_until(lambda: user.post("/chat", json=message).status_code == 200)


def answered(client: httpx2.Client, endpoint: str) -> float:
    """How many GET requests the service has answered with 200, whether or not the client has read that."""
    counter = rf'^http_requests_total{{(?=.*endpoint="{endpoint}")(?=.*method="GET")(?=.*status_code="200").*}} (\S+)'
    return sum(map(float, re.findall(counter, client.get("/metrics").text, re.MULTILINE)))


def for_a_large_answer(user: httpx2.Client) -> bytes:
    """A request whose answer is 2 MB."""
    for _ in range(100):
        assert user.post("/items", json={"title": "Large", "description": "é" * 10_000}).status_code == 201
    return (
        f"GET /items?limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: {user.headers['Authorization']}\r\n\r\n".encode()
    )


@pytest.mark.attack("many clients that hold what is large", tried=250)
def test_unread_responses_do_not_exhaust_a_worker(postgres: Postgres) -> None:
    """Each client asks for an answer of 2 MB; the service has more patience with them than the test."""
    with (
        servers.app({**postgres.environment(postgres.create_database()), **PATIENT}) as service,
        httpx2.Client(base_url=service.url, timeout=60) as client,
        sign_up(client) as user,
    ):
        request = for_a_large_answer(user)
        cost = Cost(service)
        with connections(service, 250, segment=536) as all_of_them:
            for raw in all_of_them:
                raw.sendall(request)
            wait_until(lambda: answered(client, "/items") == 250)
            main = psutil.Process(service.process.pid)
            ours = {raw.getsockname() for raw in all_of_them}
            wait_until(lambda: len([one for one in main.net_connections() if one.raddr in ours]) < 125)
            assert client.get("/readyz").status_code == 200
            memory = cost.look()[1]
        assert memory < BoundedHttpProtocol.MAX_UNREAD_BYTES + 8 * MEMORY, "250 would leave 470 MB"
        assert user.get("/items?limit=1").status_code == 200


def test_a_slow_reader_has_the_whole_of_a_large_answer(service: Running, client: httpx2.Client) -> None:
    """It still reads when uvicorn would close an idle connection, 5 s after the answer was handed over."""
    with sign_up(client) as user, connections(service, 1, segment=536) as (raw,):
        request = for_a_large_answer(user)
        whole = user.get("/items?limit=100").content
        raw.sendall(request)
        answer = raw.makefile("rb")
        assert b"".join(iter(answer.readline, b"\r\n")).startswith(b"HTTP/1.1 200 ")
        body = answer.read(len(whole) // 10)
        time.sleep(7)
        assert body + answer.read(len(whole) - len(body)) == whole


@pytest.mark.parametrize("target", ["GET /healthz", "POST /nowhere", "POST /healthz", "GET /items"])
@pytest.mark.attack("a body that goes on after its answer", tried=1)
def test_a_body_that_goes_on_after_its_answer_is_cut_off(service: Running, target: str) -> None:
    with connections(service, 1) as (raw,):
        raw.sendall(f"{target} HTTP/1.1\r\nHost: any\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFF\r\n".encode())
        assert raw.recv(12).startswith(b"HTTP/1.1 ")
        with pytest.raises(ConnectionError):
            raw.sendall(b"x" * 2**26)


def test_a_body_in_many_small_chunks_is_taken(service: Running, client: httpx2.Client) -> None:
    body = json.dumps({"message": "word " * 2**13, "stream": False}).encode()
    with sign_up(client) as user:
        chunks = (body[start : start + 16] for start in range(0, len(body), 16))
        answer = user.post("/chat", content=chunks, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text


def test_too_long_and_too_many(client: httpx2.Client) -> None:
    assert client.get("/items?" + "a" * MAX_URL_BYTES).status_code == 414
    assert client.get("/items", headers={f"x-{number}": "a" for number in range(120)}).status_code == 431


def test_one_error_for_all_unknown_keys(client: httpx2.Client) -> None:
    answer = client.post("/users", json={"name": "x"} | {f"{'k' * 200}{number}": 1 for number in range(9)})
    assert answer.status_code == 422
    (error,) = answer.json()["detail"]
    assert error["type"] == "extra_forbidden"
    assert len(error["loc"][1]) == 100


@pytest.mark.parametrize(
    ("body", "excess"),
    [
        (b'{"name": "x"}', None),
        (json.dumps({"message": 'Say "{[,:" and \\ and \\" \u00e9' * 1000}).encode(), None),
        (json.dumps({"message": "x", "conversation_id": 1, "model": "m", "stream": True}, indent=4).encode(), None),
        (b'{"a\\\\": [' + b"[]," * 200 + b"1]}", "values"),
        (b'{"a\\"": [' + b"[]," * 50 + b"1]}", "objects and lists"),
        ('{"\\"": [' + "[]," * 200 + "1]}", "UTF-8"),
        (b'{"message": "' + b"\xed\xa0\x80" * 100 + b'"}', "UTF-8"),
        (b'{"message": "\xff"}', "UTF-8"),
        (b"[" * 33, "objects and lists"),
        (b'"' * 500, "keys"),
        (b" " * 5000, "outside of strings"),
        (b"9" * 5000, "outside of strings"),
        (b"", None),
    ],
)
def test_structure_is_judged_before_it_is_parsed(body: bytes | str, excess: str | None) -> None:
    found = json_excess(body if isinstance(body, bytes) else body.encode("utf-16-le"))
    assert found is None if excess is None else excess in str(found)


@pytest.mark.attack("sign-ups in masses", tried=8)
def test_sign_ups_are_limited_per_client(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    other = httpx2.HTTPTransport(local_address="127.0.0.2")
    with (
        servers.app({**environment, "APP_SIGN_UPS_PER_MINUTE": "5"}) as running,
        httpx2.Client(base_url=running.url, timeout=60) as client,
        httpx2.Client(base_url=running.url, timeout=60, transport=other) as neighbour,
    ):
        answers = [client.post("/users", json={"name": "x"}) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [201] * 5 + [429] * 3
        assert answers[-1].headers["Retry-After"] == "60"
        assert client.get("/healthz").status_code == 200
        assert neighbour.post("/users", json={"name": "x"}).status_code == 201
