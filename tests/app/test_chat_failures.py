"""POST /chat where the provider, the database or the service itself fails: an answer that was paid for arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncSession

from app.api import chat
from app.llm import Chunk, Completion, LLMError, Message
from app.settings import Settings
from tests.app.chats import FAST, Script, events, hanging
from tests.servers import Postgres


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
    assert defects() == before + 1, "HttpNewException and AvailabilityBurn must fire for it"
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
