"""Streams of the official SDKs in time: the first token, what is in progress, and clients that leave on the way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import anyio
import pytest

from app.llm import LLMError, LLMService
from tests.app.llm.wire import PROMPT, service
from tests.telemetry.llm.fake_provider import (
    FakeProvider,
    anthropic_stream,
    openai_stream,
    openai_whole,
    until,
)
from tests.telemetry.llm.measured import (
    ANTHROPIC_START,
    CANCELLED,
    FIRST_TOKEN,
    measured,
    missing,
    seconds,
)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_slow_first_token(provider: str, fake: FakeProvider, model: str) -> None:
    stream = openai_stream if provider == "openai" else anthropic_stream
    fake.replies = [stream(first_delay=0.5)]
    async with service(fake, provider, model) as llm:
        async for _ in llm.stream(PROMPT):
            pass
    first = seconds("llm_time_to_first_token_seconds", provider, model)
    almost = 0.5 - 0.001  # timers of an event loop may end a part of a millisecond early
    assert almost <= first <= seconds("llm_request_duration_seconds", provider, model)


async def test_role_chunk_is_not_the_first_token(fake: FakeProvider, model: str) -> None:
    """OpenAI announces the role before there is any output: it must not count as a token."""
    fake.replies = [openai_stream(stall_after=1)]
    async with service(fake, "openai", model, timeout=5, max_retries=0) as llm:
        with pytest.raises(LLMError, match="timeout"):
            async for _ in llm.stream(PROMPT):
                pass
    assert fake.exchanges[0].events_sent == 1
    assert "llm_time_to_first_token_seconds_count" not in measured("openai", model)


async def _leave(llm: LLMService, how: str, chunks: int) -> None:
    """Read some chunks of a stream, then leave it."""
    reached = asyncio.Event()
    scope = anyio.CancelScope()  # as Starlette ends a streaming response: cancels every await until it is left

    async def read() -> None:
        seen = 0
        with scope:
            async with aclosing(llm.stream(PROMPT)) as stream:
                async for _ in stream:
                    seen += 1
                    if seen == chunks:
                        reached.set()
                        if how == "break":
                            break
                        if how == "raise":
                            raise KeyError("the reader's own trouble")

    task = asyncio.create_task(read())
    await asyncio.wait_for(reached.wait(), 240)
    await asyncio.sleep(0.05)  # so that it waits for the provider
    if how == "cancel":
        task.cancel()
    if how == "cancel scope":
        scope.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("how", ["break", "cancel", "cancel scope", "raise"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_client_leaves(how: str, provider: str, fake: FakeProvider, model: str) -> None:
    """Accounted as cancelled, with the tokens that the provider had reported by then; and its request is closed."""
    pieces = ("Hello", " to", " you")
    fake.replies = [
        openai_stream(pieces, stall_after=3) if provider == "openai" else anthropic_stream(pieces, stall_after=5)
    ]
    async with service(fake, provider, model) as llm:
        await _leave(llm, how, 2)
        reported = ANTHROPIC_START if provider == "anthropic" else {}
        assert measured(provider, model) == pytest.approx(CANCELLED | FIRST_TOKEN | reported | missing("cancelled"))
        await until(lambda: fake.open_exchanges == 0)
    assert [exchange.client_left for exchange in fake.exchanges] == [True]


async def test_client_leaves_before_the_answer(fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_whole(delay=60)]
    async with service(fake, "openai", model) as llm:
        task = asyncio.create_task(llm.complete(PROMPT))
        await until(lambda: len(fake.exchanges) == 1)
        assert measured("openai", model)["llm_requests_in_progress"] == 1
        task.cancel()
        await asyncio.wait({task})
    assert measured("openai", model) == CANCELLED | missing("cancelled")


async def test_in_progress_while_streaming(fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_stream(stall_after=2)]
    async with service(fake, "openai", model) as llm:
        stream = llm.stream(PROMPT)
        await anext(stream)
        assert measured("openai", model)["llm_requests_in_progress"] == 1
        await stream.aclose()
    assert "llm_requests_in_progress" not in measured("openai", model)
