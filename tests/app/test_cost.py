"""Any request costs at most 50 ms of CPU time and 16 MiB, at the default limits.

Hostile shapes are made at random (the seed is printed at the end of the run), each is sent several times, and the
service's own CPU time and its highest memory are read from the system. On a slower machine it may be more time, in the
proportion of a computation that is measured in the same run; what runs beside it on shared cores and caches makes the
same work dearer, so the cheapest of several rounds counts.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import psycopg
import pytest

from app.faults import MAX_SECONDS
from app.limits import BODY_BYTES, MAX_URL_BYTES
from tests import servers
from tests.app.conftest import sign_up
from tests.app.cost import MEMORY, Cost
from tests.running import Running
from tests.servers import Postgres

CPU_SECONDS = 0.05
YARDSTICK_SECONDS = 0.032  # of CPU time, on the machine on which a request may cost CPU_SECONDS
GRAIN = 2 * 2**20  # of memory, as a kernel may give it in huge pages, and the allocator keeps it
TOKEN = "for-these-tests-only"
TIMES = 5  # each: a single one is too close to the resolution of the system's clock, 10 ms
ROUNDS = 6  # at most, until one is within the limit
SHAPES = 400 if "FUZZ_SECONDS" in os.environ else 40
SEED = int(os.environ.get("FUZZ_SEED", "18"))
ROUTES = (("POST", "/users"), ("POST", "/items"), ("PUT", "/items/1"), ("POST", "/chat"), ("DELETE", "/items/1"))


@pytest.fixture(scope="module")
def service(postgres: Postgres) -> Iterator[Running]:
    """Its model answers at once, in one piece: how often a service wakes for a slow answer is no cost of a request."""
    environment = {
        **postgres.environment(postgres.create_database()),
        "APP_SIGN_UPS_PER_MINUTE": "0",
        "FAULTS_ENABLED": "true",
        "FAULTS_TOKEN": TOKEN,
    }
    with servers.app(environment) as running:
        at_once = {"first_token_seconds": 0, "tokens_per_second": 10_000, "seconds": MAX_SECONDS}
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        httpx2.post(f"{running.url}/faults/llm-slow", json=at_once, headers=bearer).raise_for_status()
        yield running


def hostile(dice: random.Random, size: int) -> bytes:
    """A body of about `size` bytes that is cheap to send and may be dear to read."""
    keys = [f'"{number:x}"' for number in range(size // 8)]
    fill: Callable[[str], str] = lambda piece: piece * (size // max(1, len(piece)))  # noqa: E731
    shapes: list[Callable[[], str]] = [
        lambda: "{" + ",".join(f"{key}:1" for key in keys) + "}",
        lambda: "{" + ",".join(f"{key}:{{}}" for key in keys) + "}",
        lambda: '{"name":[' + fill("[],") + "[]]}",
        lambda: '{"name":[' + fill("{},") + "{}]}",
        lambda: '{"name":[' + fill('"a",') + "1]}",
        lambda: '{"name":[' + fill("0.1,") + "1]}",
        lambda: fill("["),
        lambda: '{"a":' * (size // 10) + "1" + "}" * (size // 10),
        lambda: '{"name":"' + fill("x") + '"}',
        lambda: '{"message":"' + fill("\\u0000") + '"}',
        lambda: '{"message":"' + fill("\\ud83e\\udd89") + '"}',
        lambda: '{"message":"' + fill('\\"') + '"}',
        lambda: '{"message":"' + fill("\\\\") + '"}',
        lambda: '{"message":"' + fill("🦉") + '"}',
        lambda: '{"' + fill("k") + '":1}',
        lambda: "{" + fill('"name":1,') + '"name":2}',
        lambda: "9" * size,
        lambda: "0." + "9" * size,
        lambda: " " * size,
        lambda: fill('"'),
        lambda: '{"message":"' + fill("{[,:") + '"}',
        lambda: '{"title":"x","description":"' + fill("é") + '"}',
        lambda: '{"message":"' + fill("\ud800") + '"}',
    ]
    text = dice.choice(shapes)()
    return text.encode(dice.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")), "surrogatepass")


TEXT = json.dumps({"message": "word \u00e9\U0001f989 \n " * 20_000})


def yardstick() -> float:
    """Seconds of CPU time that this process needs for work as a request makes it."""
    began = time.process_time()
    for _ in range(3):
        message = json.loads(TEXT)["message"]
        assert len(re.findall(rb"\w+", message.encode())) == 20_000
        assert sum(map(len, message.split())) == 6 * 20_000
    return time.process_time() - began


@pytest.fixture(scope="module")
def cpu_seconds() -> float:
    """The most that a request may cost here."""
    return CPU_SECONDS * max(1.0, min(yardstick() for _ in range(5)) / YARDSTICK_SECONDS)


def measured(service: Running, work: Callable[[], None], cpu_seconds: float) -> tuple[float, int]:
    """Seconds of CPU time of a call of `work`, in the first round within the limit or else the cheapest; most bytes."""
    cost = Cost(service)
    cheapest, most = float("inf"), 0
    for _ in range(ROUNDS):
        cost.start()
        for _ in range(TIMES):
            work()
        cpu, memory = cost.look()
        cheapest, most = min(cheapest, cpu / TIMES), max(most, memory)
        if cheapest <= cpu_seconds:
            break
    return cheapest, most


@pytest.mark.attack("a request made to be costly", tried=SHAPES * TIMES)
def test_any_body_costs_little(
    service: Running, client: httpx2.Client, cpu_seconds: float, summarize: Callable[[str, str], None]
) -> None:
    dice = random.Random(SEED)
    most_cpu, most_memory, answers = 0.0, 0, set()
    with sign_up(client) as user:
        for _ in range(SHAPES):
            method, path = dice.choice(ROUTES)
            limit = BODY_BYTES.get(path.rsplit("/", path.count("/") - 1)[0], 1024 * 1024)
            body = hostile(dice, int(limit * dice.choice((0.3, 0.9, 0.999, 1.0, 3))))
            sender = dice.choice((client, client, user)) if path != "/chat" else client
            shown = (method, path, len(body), body[:40])

            def send() -> None:
                answer = sender.request(method, path, content=body, headers={"Content-Type": "application/json"})  # noqa: B023  is called at once
                assert answer.status_code in {201, 204, 400, 401, 404, 413, 422}, (answer.status_code, shown)  # noqa: B023
                assert len(answer.content) < 8192, shown  # noqa: B023
                answers.add(answer.status_code)

            cpu, memory = measured(service, send, cpu_seconds)
            assert cpu <= cpu_seconds, (cpu, shown)
            assert memory <= MEMORY + GRAIN, (memory, shown)
            most_cpu, most_memory = max(most_cpu, cpu), max(most_memory, memory)
    summarize(
        "cost of hostile requests",
        f"seed {SEED}: {SHAPES} bodies, {TIMES} times each: at most {most_cpu * 1000:.0f} ms CPU time and"
        f" {most_memory / 2**20:.1f} MiB; answers {sorted(answers)}",
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "/items?" + "a&" * (MAX_URL_BYTES // 2 - 10)},
        {"url": "/items?" + "limit=1&" * (MAX_URL_BYTES // 8 - 10)},
        {"url": "/items/" + "9" * (MAX_URL_BYTES - 20)},
        {"url": "/" + "a/" * (MAX_URL_BYTES // 2 - 10)},
        {"url": "/items?" + "%F0" * 2700},
        {"url": "/items", "headers": {f"x-{number}": "a" * 500 for number in range(90)}},
        {"url": "/items", "headers": {"cookie": "a=b;" * 10_000}},
        {"url": "/items", "headers": {"authorization": "Bearer " + "a" * 50_000}},
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.attack("a request made to be costly", tried=TIMES)
def test_any_address_and_header_costs_little(
    service: Running, client: httpx2.Client, cpu_seconds: float, request_: dict[str, str]
) -> None:
    def send() -> None:
        assert client.request("GET", **request_).status_code in {401, 404, 422}  # type: ignore[arg-type]

    cpu, memory = measured(service, send, cpu_seconds)
    assert cpu <= cpu_seconds
    assert memory <= MEMORY + GRAIN


@pytest.mark.parametrize("path", ["/chat", "/users", "/healthz"])
@pytest.mark.attack("a request made to be costly", tried=TIMES)
def test_a_body_in_chunks_of_one_byte_costs_little(service: Running, cpu_seconds: float, path: str) -> None:
    """The largest body of any route; each chunk is five more bytes on the wire, and a call in the server."""
    request = f"POST {path} HTTP/1.1\r\nHost: any\r\nTransfer-Encoding: chunked\r\n\r\n".encode()

    def send() -> None:
        with socket.create_connection(("127.0.0.1", service.port), 60) as connection:
            answer = connection.makefile("rb")
            with suppress(ConnectionError):  # it is closed while the rest is still sent
                connection.sendall(request + b"1\r\n \r\n" * 2**20 + b"0\r\n\r\n")
            with suppress(ConnectionError):
                assert answer.readline().split()[1] in {b"400", b"405", b"413"}

    cpu, memory = measured(service, send, cpu_seconds)
    assert cpu <= cpu_seconds
    assert memory <= MEMORY + GRAIN


@pytest.mark.parametrize("piece", [b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xff", b"\xf0\x9f"], ids=repr)
@pytest.mark.attack("a request made to be costly", tried=TIMES)
def test_a_body_that_is_not_utf8_costs_little(
    service: Running, client: httpx2.Client, cpu_seconds: float, piece: bytes
) -> None:
    body = b'{"message":"' + piece * ((2**20 - 14) // len(piece)) + b'"}'

    def send() -> None:
        assert client.post("/chat", content=body, headers={"Content-Type": "application/json"}).status_code == 422

    cpu, memory = measured(service, send, cpu_seconds)
    assert cpu <= cpu_seconds
    assert memory <= MEMORY + GRAIN


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "message",
    ["word " * 40_000, "é" * 200_000, "\\u00e9" * 170_000, "\\ud83e\\udd89" * 87_000, "🦉" * 200_000, "\\n" * 200_000],
    ids=["words", "two bytes", "escaped", "escaped pairs", "four bytes", "lines"],
)
@pytest.mark.attack("a request made to be costly", tried=TIMES)
def test_a_valid_question_at_the_limits_costs_little(
    service: Running,
    client: httpx2.Client,
    cpu_seconds: float,
    message: str,
    stream: bool,
    summarize: Callable[[str, str], None],
) -> None:
    """As long as a message or a body may be; later ones of the conversation come with those before."""
    body = f'{{"message": "{message}", "stream": {json.dumps(stream)}'
    with sign_up(client) as user:
        answer = user.post("/chat", json={"message": "Hello", "stream": False})
        conversation = answer.json()["conversation_id"]
        content = f'{body}, "conversation_id": {conversation}}}'.encode()

        def ask() -> None:
            answer = user.post("/chat", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200, answer.text[:500]
            assert not stream or "event: done" in answer.text

        cpu, memory = measured(service, ask, cpu_seconds)
    summarize(
        "cost of the largest questions",
        f"{len(content) / 1000:.0f} kB, {'streamed' if stream else 'whole'}: {cpu * 1000:.0f} ms CPU time, "
        f"{memory / 2**20:.1f} MiB",
    )
    assert cpu <= cpu_seconds
    assert memory <= MEMORY + GRAIN


@pytest.mark.attack("a request made to be costly", tried=3 * TIMES)
def test_reading_and_continuing_the_longest_conversation_costs_little(
    service: Running,
    postgres: Postgres,
    client: httpx2.Client,
    cpu_seconds: float,
    summarize: Callable[[str, str], None],
) -> None:
    """A hundred messages, half of them as long as they may be: 40 MB, of which each response has a page."""
    question = "🦉" * 200_000
    with sign_up(client) as user:
        conversation = user.post("/chat", json={"message": "Hello", "stream": False}).json()["conversation_id"]
        with psycopg.connect(postgres.dsn(service.server.environment["DATABASE_NAME"])) as connection:
            connection.cursor().executemany(
                "INSERT INTO messages (conversation_id, role, content) VALUES (%s, 'user', %s)",
                [(conversation, question if number % 2 else "short") for number in range(98)],
            )
            (whole,) = connection.execute("SELECT array_agg(id ORDER BY id) FROM messages").fetchone() or ([],)
        found: list[int] = []
        params = {"limit": 100}
        while params:
            answer = user.get(f"/conversations/{conversation}", params=params).json()
            found += [message["id"] for message in answer["messages"]]
            params = {"limit": 100, "after": answer["next"]} if answer["next"] else {}
        assert found == whole[-100:]
        address = f"/conversations/{conversation}"
        kinds: dict[str, Callable[[], httpx2.Response]] = {
            "the first page": lambda: user.get(address, params={"limit": 100}),
            "the middle": lambda: user.get(address, params={"limit": 100, "after": found[50]}),
            "a further question": lambda: user.post(
                "/chat", json={"message": "x", "stream": False, "conversation_id": conversation}
            ),
        }
        for kind, request in kinds.items():

            def ask() -> None:
                assert request().status_code == 200  # noqa: B023  is called at once

            cpu, memory = measured(service, ask, cpu_seconds)
            summarize(
                "cost of the longest conversation",
                f"{kind}: {cpu * 1000:.0f} ms CPU time, {memory / 2**20:.1f} MiB",
            )
            assert cpu <= cpu_seconds, (kind, cpu, memory)
            assert memory <= MEMORY + GRAIN, (kind, cpu, memory)
