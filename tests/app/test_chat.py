"""POST /chat: whole and streamed, stored, and without holding a database connection meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message as ASGIMessage

from app.api import chat
from app.api.chat import HISTORY
from app.llm import Chunk, Completion, LLMError, Message, SimulatedBehaviour
from app.settings import Settings
from tests import servers
from tests.app.conftest import metric_value, sign_up
from tests.servers import Postgres, Running, wait_until

FAST = SimulatedBehaviour(first_token_seconds=0, tokens_per_second=100_000, output_tokens=20, spread=0)


def events(lines: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """The server-sent events of a response, which has to consist of nothing else."""
    found = []
    for block in "\n".join(lines).removesuffix("\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_an_answer_is_returned_and_stored(user: httpx2.Client) -> None:
    answer = user.post("/chat", json={"message": "What is a quantile?"}).json()
    assert answer["provider"] == "simulated"
    assert answer["message"].startswith("This is a simulated answer.")
    assert answer["usage"]["input_tokens"] > 0 < answer["usage"]["output_tokens"]

    assert user.get("/conversations").json()["conversations"][0]["title"] == "What is a quantile?"
    stored = user.get(f"/conversations/{answer['conversation_id']}").json()
    assert [(message["role"], message["content"], message["complete"]) for message in stored["messages"]] == [
        ("user", "What is a quantile?", True),
        ("assistant", answer["message"], True),
    ]
    assert stored["messages"][1]["model"] == answer["model"]


def test_a_stream_is_start_deltas_and_done_and_stored(user: httpx2.Client) -> None:
    conversation = user.post("/chat", json={"message": "Hello"}).json()["conversation_id"]
    question = {"message": "Go on\n\nplease", "stream": True, "conversation_id": conversation}
    with user.stream("POST", "/chat", json=question) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        (first, start), *deltas, (last, done) = events(response.iter_lines())
    assert (first, last) == ("start", "done")
    assert start == {"conversation_id": conversation, "model": "simulated-small", "provider": "simulated"}
    assert {name for name, _ in deltas} == {"delta"}
    assert done["finish_reason"] == "stop"
    assert done["usage"]["output_tokens"] > 0

    messages = user.get(f"/conversations/{conversation}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[3]["content"] == "".join(delta["text"] for _, delta in deltas)
    assert messages[3]["complete"] is True


@contextmanager
def answering(postgres: Postgres, first_token_seconds: float, tokens_per_second: float) -> Iterator[Running]:
    """A service whose model takes this long for the first of some sixty tokens, and writes at this pace."""
    faults = {"FAULTS_ENABLED": "true", "FAULTS_TOKEN": "a-token"}
    with servers.app({**postgres.environment(postgres.create_database()), **faults}) as running:
        behaviour = {
            "seconds": 1800,
            "first_token_seconds": first_token_seconds,
            "tokens_per_second": tokens_per_second,
        }
        headers = {"Authorization": "Bearer a-token"}
        answer = httpx2.post(f"{running.url}/faults/llm-slow", json=behaviour, headers=headers, timeout=60)
        assert answer.status_code == 200
        yield running


@pytest.fixture(scope="module")
def never_answering(postgres: Postgres) -> Iterator[Running]:
    with answering(postgres, first_token_seconds=120, tokens_per_second=1) as running:
        yield running


@pytest.fixture(scope="module")
def answering_slowly(postgres: Postgres) -> Iterator[Running]:
    """In about six seconds: whoever looks meanwhile may be on a busy machine."""
    with answering(postgres, first_token_seconds=0, tokens_per_second=10) as running:
        yield running


@pytest.fixture
def slow(answering_slowly: Running) -> Iterator[httpx2.Client]:
    """A new user of `answering_slowly`."""
    with httpx2.Client(base_url=answering_slowly.url, timeout=60) as client, sign_up(client) as user:
        yield user


def test_what_a_client_got_before_it_left_is_stored_as_incomplete(slow: httpx2.Client) -> None:
    with slow.stream("POST", "/chat", json={"message": "A long story", "stream": True}) as response:
        received = [line for line, _ in zip(response.iter_lines(), range(12), strict=False)]
    conversation = json.loads(received[1].removeprefix("data: "))["conversation_id"]
    text = "".join(data["text"] for name, data in events(received[:11]) if name == "delta")
    assert text

    def messages() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = slow.get(f"/conversations/{conversation}").json()["messages"]
        return found

    wait_until(lambda: len(messages()) == 2)
    answer = messages()[1]
    assert answer["complete"] is False
    assert answer["content"].startswith(text)


def test_no_connection_of_the_pool_is_held_while_the_model_writes(slow: httpx2.Client) -> None:
    with slow.stream("POST", "/chat", json={"message": "A story", "stream": True}) as response:
        lines = response.iter_lines()
        first = next(lines)
        assert metric_value(slow, 'llm_requests_in_progress{provider="simulated"}') == 1
        assert metric_value(slow, 'db_pool_connections{state="used"}') == 0
        assert events([first, *lines])[-1][0] == "done"
    assert metric_value(slow, "llm_requests_in_progress") == 0


def test_nor_while_the_whole_answer_is_waited_for(slow: httpx2.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(slow.post, "/chat", json={"message": "A story"})
        wait_until(lambda: metric_value(slow, "llm_requests_in_progress") == 1)
        assert metric_value(slow, 'db_pool_connections{state="used"}') == 0
        assert answer.result().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_answer_ends_the_call(never_answering: Running, stream: bool) -> None:
    with httpx2.Client(base_url=never_answering.url, timeout=60) as client, sign_up(client) as user:

        def moved(series: str) -> float:
            return metric_value(client, series)

        cancelled = 'llm_requests_total{outcome="cancelled"}'
        gone = 'http_requests_total{endpoint="/chat",status_code="499"}'
        before = moved(cancelled), moved(gone)
        question = user.build_request("POST", "/chat", json={"message": "Hello", "stream": stream})
        lines = ["POST /chat HTTP/1.1", *(f"{name}: {value}" for name, value in question.headers.items()), "", ""]
        with socket.create_connection((question.url.host, question.url.port or 80)) as connection:
            connection.sendall("\r\n".join(lines).encode() + question.content)
            wait_until(lambda: moved("llm_requests_in_progress") == 1)
        wait_until(lambda: moved("llm_requests_in_progress") == 0)
        wait_until(lambda: (moved(cancelled), moved(gone)) == (before[0] + 1, before[1] + 1))
        assert moved("http_exceptions_total") == 0
        conversation = user.get("/conversations").json()["conversations"][0]["id"]
        messages = user.get(f"/conversations/{conversation}").json()["messages"]
        assert [message["content"] for message in messages] == ["Hello"]
    assert "Traceback" not in never_answering.log


def test_only_the_models_of_the_service(user: httpx2.Client) -> None:
    # Else the most expensive one would be there for everybody.
    for stream in (False, True):
        answer = user.post("/chat", json={"message": "Hello", "model": "simulated-huge", "stream": stream})
        assert answer.status_code == 404
        assert answer.json() == {"detail": "No such model; there are simulated-large, simulated-small"}
    assert user.get("/conversations").json()["conversations"] == []
    assert (
        user.post("/chat", json={"message": "Hello", "model": "simulated-large"}).json()["model"] == "simulated-large"
    )


class Script:
    """A provider that sends the given pieces and then fails, if an error is given; remembers what it was asked."""

    def __init__(self, pieces: list[str], error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.asked: list[list[Message]] = []
        self.ended = False

    async def stream(self, messages: list[Message], model: str | None = None) -> AsyncIterator[Chunk]:
        self.asked.append(messages)
        try:
            for piece in self.pieces:
                await asyncio.sleep(0)
                yield Chunk(piece)
            if self.error:
                raise self.error
            yield Chunk("", None, "stop")
        finally:
            self.ended = True


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("rate_limit", 503),
        ("overloaded", 503),
        ("timeout", 504),
        ("context_length", 400),
        ("auth", 502),
        ("other", 502),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_fails_at_once_gives_its_status_code(
    app: FastAPI, inside: httpx2.AsyncClient, kind: str, status: int, stream: bool
) -> None:
    app.state.llm.provider.behaviour = replace(FAST, error_share=1, error_kind=kind)
    answer = await inside.post("/chat", json={"message": "Hello", "stream": stream})
    assert answer.status_code == status
    assert answer.json() == {"detail": f"No answer: the LLM call failed: {kind}"}
    assert ("Retry-After" in answer.headers) is (status == 503)
    # The question is not lost.
    conversation = (await inside.get("/conversations")).json()["conversations"][0]["id"]
    messages = (await inside.get(f"/conversations/{conversation}")).json()["messages"]
    assert [message["content"] for message in messages] == ["Hello"]


async def test_a_provider_that_fails_on_the_way_ends_the_stream_with_an_error_event(
    app: FastAPI, inside: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.llm, "stream", Script(["Half ", "an answer"], LLMError("incomplete")).stream)
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    (_, start), *deltas, (last, error) = events(answer.text.split("\n")[:-1])
    assert [delta["text"] for _, delta in deltas] == ["Half ", "an answer"]
    assert (last, error) == ("error", {"detail": "the LLM call failed: incomplete"})
    messages = (await inside.get(f"/conversations/{start['conversation_id']}")).json()["messages"]
    assert [(message["content"], message["complete"]) for message in messages][1] == ("Half an answer", False)


async def test_a_client_that_leaves_while_a_piece_is_being_sent_ends_the_call(
    app: FastAPI, inside: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its request ends, not whenever the garbage collector finds the generator."""
    script = Script(["Once ", "upon ", "a time"])
    monkeypatch.setattr(app.state.llm, "stream", script.stream)
    stuck = asyncio.Event()
    requests: list[ASGIMessage] = [
        {"type": "http.request", "body": b'{"message": "A story", "stream": true}', "more_body": False}
    ]

    async def receive() -> ASGIMessage:
        if requests:
            return requests.pop()
        await stuck.wait()
        return {"type": "http.disconnect"}

    async def send(message: ASGIMessage) -> None:
        if b"event: delta" in message.get("body", b""):
            stuck.set()
            await asyncio.Event().wait()  # the client does not read

    headers = [
        (b"authorization", inside.headers["Authorization"].encode()),
        (b"content-type", b"application/json"),
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    assert script.ended
    conversation = (await inside.get("/conversations")).json()["conversations"][0]["id"]
    messages = (await inside.get(f"/conversations/{conversation}")).json()["messages"]
    assert [(message["content"], message["complete"]) for message in messages][1:] == [("Once ", False)]


async def test_what_postgresql_cannot_store_does_not_lose_the_answer(
    app: FastAPI, inside: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.llm, "stream", Script(["nul \x00", " half a pair \ud83e", "\nend"]).stream)
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    (_, start), *_, (last, _) = events(answer.text.split("\n")[:-1])
    assert last == "done"
    messages = (await inside.get(f"/conversations/{start['conversation_id']}")).json()["messages"]
    assert messages[1]["content"] == "nul  half a pair ?\nend"


@contextmanager
def cut_off(postgres: Postgres, database: str) -> Iterator[None]:
    """The database ends all connections and takes no new ones."""
    name = database.rpartition("/")[2]
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@contextmanager
def hanging(postgres: Postgres, database: str) -> Iterator[None]:
    """The database answers nothing, and closes no connection."""
    with servers.suspended(postgres.running):
        yield


@pytest.mark.attack("the database stops under an answer", tried=20)
@pytest.mark.parametrize("outage", [cut_off, hanging])
async def test_an_answer_that_cannot_be_stored_reaches_its_client(
    app: FastAPI,
    inside: httpx2.AsyncClient,
    settings: Settings,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outage: Callable[[Postgres, str], AbstractContextManager[None]],
) -> None:
    """The database goes away under ten streams and ten whole answers: each client gets what has been paid for."""
    asked, away = asyncio.Semaphore(0), asyncio.Event()

    async def stream(messages: list[Message], model: str | None = None) -> AsyncIterator[Chunk]:
        yield Chunk("Half ")
        asked.release()
        await away.wait()
        yield Chunk("and half")
        yield Chunk("", None, "stop")

    async def complete(messages: list[Message], model: str | None = None) -> Completion:
        asked.release()
        await away.wait()
        return Completion("Half and half", "m", "p", None, "stop")

    monkeypatch.setattr(app.state.llm, "stream", stream)
    monkeypatch.setattr(app.state.llm, "complete", complete)
    streams = [asyncio.create_task(inside.post("/chat", json={"message": "A", "stream": True})) for _ in range(10)]
    wholes = [asyncio.create_task(inside.post("/chat", json={"message": "A"})) for _ in range(10)]
    for _ in range(20):
        await asyncio.wait_for(asked.acquire(), 240)
    with outage(postgres, settings.database_name):
        away.set()
        for answer in await asyncio.gather(*streams):
            *deltas, (last, done) = events(answer.text.split("\n")[:-1])
            assert (answer.status_code, last, done["stored"]) == (200, "done", False)
            assert "".join(data["text"] for name, data in deltas if name == "delta") == "Half and half"
        for answer in await asyncio.gather(*wholes):
            assert (answer.status_code, answer.json()["stored"]) == (200, False)
            assert answer.json()["message"] == "Half and half"
    said = [record for record in caplog.records if "was not stored" in record.getMessage()]
    assert len(said) == 20
    assert not any(record.exc_info or "\n" in record.getMessage() for record in said)
    async with asyncio.timeout(240):
        while (answer := await inside.post("/chat", json={"message": "Again"})).status_code == 503:
            pass  # until the pool has ended the connections that hung
    assert (answer.status_code, answer.json()["stored"]) == (200, True)


REFUSES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION E'no\\nrow' USING ERRCODE = '{code}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.role = 'assistant') EXECUTE FUNCTION refuse()
"""
CODES = {
    "40001": "serialization",
    "40P01": "deadlock",
    "57014": "statement timeout",
    "53100": "disk full",
    "XX000": "?",
}


@pytest.mark.attack("the database refuses to store an answer", tried=2)
@pytest.mark.parametrize("code", CODES, ids=CODES.get)
async def test_an_answer_that_the_database_refuses_reaches_its_client(
    app: FastAPI,
    inside: httpx2.AsyncClient,
    settings: Settings,
    postgres: Postgres,
    caplog: pytest.LogCaptureFixture,
    code: str,
) -> None:
    app.state.llm.provider.behaviour = FAST
    with psycopg.connect(postgres.dsn(settings.database_name)) as connection:
        connection.execute(REFUSES.format(code=code))
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    *_, (last, done) = events(answer.text.split("\n")[:-1])
    assert (answer.status_code, last, done["stored"]) == (200, "done", False)
    answer = await inside.post("/chat", json={"message": "Hello"})
    assert (answer.status_code, answer.json()["stored"]) == (200, False)
    said = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    assert not any(record.exc_info or "\n" in record.getMessage() for record in said)


def defects() -> float:
    labels = {"method": "POST", "endpoint": "/chat", "exception": "KeyError"}
    return REGISTRY.get_sample_value("http_exceptions_total", labels) or 0.0


@pytest.mark.attack("a defect of the service under an answer")
async def test_a_defect_on_the_way_ends_the_stream_with_an_error_event(
    app: FastAPI, inside: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.state.llm, "stream", Script(["Half ", "an answer"], KeyError("defect")).stream)
    before = defects()
    outside = httpx2.ASGITransport(app, raise_app_exceptions=False)  # a server logs it, and closes the connection
    async with httpx2.AsyncClient(transport=outside, base_url="http://app", headers=inside.headers) as client:
        answer = await client.post("/chat", json={"message": "Hello", "stream": True})
    (_, start), *_, (last, error) = events(answer.text.split("\n")[:-1])
    assert (last, error) == ("error", {"detail": "Internal Server Error"})
    assert defects() == before + 1, "HttpNewException and AvailabilityBurn must hear of it"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    messages = (await inside.get(f"/conversations/{start['conversation_id']}")).json()["messages"]
    assert [(message["content"], message["complete"]) for message in messages][1] == ("Half an answer", False)


@pytest.mark.attack("a defect of the service under an answer", tried=2)
async def test_a_defect_in_storing_does_not_lose_the_answer(
    app: FastAPI, inside: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = chat._store

    async def fail(session: AsyncSession, **values: Any) -> None:
        if values["role"] == "assistant":
            raise KeyError("defect")
        await store(session, **values)

    app.state.llm.provider.behaviour = FAST
    monkeypatch.setattr(chat, "_store", fail)
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    *_, (last, done) = events(answer.text.split("\n")[:-1])
    assert (last, done["stored"]) == ("done", False)
    assert (await inside.post("/chat", json={"message": "Hello"})).json()["stored"] is False
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == [True, True]


async def test_the_model_sees_the_end_of_the_conversation_in_order(
    app: FastAPI, inside: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(["Answer"])
    monkeypatch.setattr(app.state.llm, "stream", script.stream)
    conversation = None
    for number in range(HISTORY):
        question = {"message": f"Question {number}", "stream": True, "conversation_id": conversation}
        answer = await inside.post("/chat", json=question)
        conversation = events(answer.text.split("\n")[:-1])[0][1]["conversation_id"]
    asked = script.asked[-1]
    assert len(asked) == HISTORY + 1
    assert asked[-3:] == [
        Message("user", f"Question {HISTORY - 2}"),
        Message("assistant", "Answer"),
        Message("user", f"Question {HISTORY - 1}"),
    ]
    assert asked[0] == Message("user", f"Question {HISTORY // 2 - 1}")
