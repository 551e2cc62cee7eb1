"""Providers that send what their protocol does not allow, or ask for long waits: the client gets a 502, at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.llm import LLMError, LLMService, Message
from tests.app.conftest import app, inside, settings
from tests.telemetry.llm.fake_provider import (
    FakeProvider,
    Reply,
    anthropic_error,
    anthropic_whole,
    openai_chunks,
    openai_error,
    openai_whole,
)
from tests.telemetry.llm.measured import measured
from tests.telemetry.llm.sdks import anthropic_messages, openai_compatible

__all__ = ["app", "inside", "settings"]

BAD: list[Any] = [[{"type": "text", "text": "Hi"}], 7, {"text": "Hi"}, "half a pair \ud83e"]


@pytest.fixture
async def asked(app: FastAPI, fake: FakeProvider, model: str) -> AsyncIterator[FastAPI]:
    """The service with the fake provider behind it."""
    app.state.llm = LLMService(openai_compatible.OpenAIProvider("k", fake.openai_url, max_retries=0), model)
    yield app
    await app.state.llm.aclose()


def whole(content: Any) -> Reply:
    reply = openai_whole()
    reply.body["choices"][0]["message"]["content"] = content
    return reply


@pytest.mark.parametrize("content", BAD, ids=repr)
async def test_content_that_is_not_text(
    content: Any, asked: FastAPI, inside: httpx2.AsyncClient, fake: FakeProvider, model: str
) -> None:
    fake.replies = [whole(content)]
    answer = await inside.post("/chat", json={"message": "Hello"})
    assert (answer.status_code, answer.json()) == (502, {"detail": "No answer: the LLM call failed: server"})

    fake.replies = [Reply(events=openai_chunks([{"content": content}], "stop", None, True))]
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    assert answer.status_code == 502

    fake.replies = [Reply(events=openai_chunks([{"content": "Half "}, {"content": content}], "stop", None, True))]
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    assert answer.status_code == 200
    assert answer.text.endswith('event: error\ndata: {"detail": "the LLM call failed: server"}\n\n')
    numbers = measured("openai", model)
    assert numbers["llm_requests_total{operation=chat,outcome=error}"] == 3
    assert numbers["llm_errors_total{error_type=server}"] == 3
    assert numbers["llm_tokens_total{type=output}"] == 30, "the whole answer has been paid for"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "no", "code": 502}}, 502),
        ({"error": {"message": "no", "code": "429"}}, 503),
        ({"id": "1", "choices": None}, 502),
        ({"id": "1", "choices": [{"index": 0, "finish_reason": "stop"}]}, 502),
        ({"id": "1", "choices": 7}, 502),
        ({"choices": [{"index": 0, "message": None, "finish_reason": "stop"}]}, 502),
    ],
    ids=str,
)
async def test_responses_without_an_answer(
    body: Any, status: int, asked: FastAPI, inside: httpx2.AsyncClient, fake: FakeProvider
) -> None:
    fake.replies = [Reply(body=body)]
    assert (await inside.post("/chat", json={"message": "Hello"})).status_code == status


async def test_errors_inside_a_stream(asked: FastAPI, inside: httpx2.AsyncClient, fake: FakeProvider) -> None:
    failed = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
    fake.replies = [Reply(events=[*openai_chunks([{"content": "Half"}], None, None, True), (None, failed)])]
    answer = await inside.post("/chat", json={"message": "Hello", "stream": True})
    assert answer.text.endswith('event: error\ndata: {"detail": "the LLM call failed: server"}\n\n')


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    "headers",
    [{"retry_after": "600"}, {"retry_after_ms": "600000"}, {"retry_after": "Fri, 01 Jan 2100 00:00:00 GMT"}],
    ids=str,
)
async def test_long_retry_waits_are_skipped(
    provider: str, headers: dict[str, str], fake: FakeProvider, model: str
) -> None:
    made: Any
    if provider == "openai":
        fake.replies = [openai_error(429, **headers), openai_whole()]
        made = openai_compatible.OpenAIProvider("k", fake.openai_url)
    else:
        fake.replies = [anthropic_error(429, "rate_limit_error", **headers), anthropic_whole()]
        made = anthropic_messages.AnthropicProvider("k", fake.anthropic_url)
    service = LLMService(made, model)
    with pytest.raises(LLMError, match="rate_limit"):
        await service.complete([Message("user", "Hello")])
    await service.aclose()
    assert len(fake.exchanges) == 1
