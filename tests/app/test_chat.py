"""POST /chat: whole and streamed, stored, and without holding a database connection meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message as ASGIMessage

from app.api.chat import HISTORY
from app.llm import Message
from tests import servers
from tests.app.chats import Script, events
from tests.app.conftest import metric_value, sign_up
from tests.running import Running, wait_until
from tests.servers import Postgres


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
    """In about six seconds: on a busy machine the check may come late."""
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
    # Otherwise any client could use the most expensive one.
    for stream in (False, True):
        answer = user.post("/chat", json={"message": "Hello", "model": "simulated-huge", "stream": stream})
        assert answer.status_code == 404
        assert answer.json() == {"detail": "Unknown model; available models: simulated-large, simulated-small"}
    assert user.get("/conversations").json()["conversations"] == []
    assert (
        user.post("/chat", json={"message": "Hello", "model": "simulated-large"}).json()["model"] == "simulated-large"
    )


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
