"""Calls by the providers' own SDKs, of every API, whole and streamed."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from app.telemetry.llm import Usage, track_call, watch_http
from tests.running import wait_until
from tests.telemetry.llm.fake_provider import (
    IMMEDIATELY,
    OPENAI_USAGE,
    Body,
    FakeProvider,
    Reply,
    anthropic_stream,
    anthropic_whole,
    openai_error,
    openai_stream,
    openai_whole,
    until,
)
from tests.telemetry.llm.measured import (
    ANTHROPIC_TOKENS,
    CANCELLED,
    ERROR,
    FIRST_TOKEN,
    OPENAI_TOKENS,
    PROMPT,
    STREAMED,
    SUCCESS,
    call,
    failed,
    finish,
    measured,
    missing,
    retried,
    tokens,
)
from tests.telemetry.llm.sdks import anthropic, openai
from tests.telemetry.llm.shapes.responses import RESPONSES_USAGE

MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
OPTIONS: dict[str, Any] = {"messages": MESSAGES}
INCLUDE_USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


@pytest.fixture
def openai_client(fake: FakeProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key="k", base_url=fake.openai_url, http_client=watch_http(openai.DefaultHttpxClient())
    ) as it:
        yield it


@pytest.fixture
def anthropic_client(fake: FakeProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key="k", base_url=fake.anthropic_url, http_client=watch_http(anthropic.DefaultHttpxClient())
    ) as it:
        yield it


@pytest.fixture
async def async_client(fake: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="k", base_url=fake.openai_url) as it:
        yield it


def test_sync_openai(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    fake.replies = [openai_error(429, **IMMEDIATELY), openai_whole()]
    with track_call("openai", model, prompt=PROMPT) as it:
        response = it.record(openai_client.chat.completions.create(model=model, **OPTIONS))
    assert response.choices[0].message.content == "Hello to you"
    assert (it.outcome, it.finish_reasons) == ("success", ["stop"])
    assert it.usage == Usage(120, 30, cache_read=100, reasoning=10)
    assert measured("openai", model) == pytest.approx(SUCCESS | OPENAI_TOKENS | finish("stop") | retried("rate_limit"))


def test_sync_openai_stream(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    fake.replies = [openai_stream()]
    with track_call("openai", model, prompt=PROMPT) as it:
        stream = openai_client.chat.completions.create(model=model, stream=True, **INCLUDE_USAGE, **OPTIONS)
        pieces = [chunk.choices[0].delta.content for chunk in it.stream(stream) if chunk.choices]
    assert pieces == ["", "Hello", " to", " you", None]
    assert measured("openai", model) == pytest.approx(SUCCESS | OPENAI_TOKENS | STREAMED | finish("stop"))


def test_usage_not_asked_for(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    fake.replies = [openai_stream()]
    with track_call("openai", model, prompt=PROMPT) as it:
        for _ in it.stream(openai_client.chat.completions.create(model=model, stream=True, **OPTIONS)):
            pass
    assert measured("openai", model) == SUCCESS | FIRST_TOKEN | finish("stop") | missing("not_requested")


def test_sync_stream_left_early_closes_the_request(
    fake: FakeProvider, openai_client: openai.OpenAI, model: str
) -> None:
    fake.replies = [openai_stream(stall_after=2)]
    with track_call("openai", model, prompt=PROMPT) as it:
        stream = openai_client.chat.completions.create(model=model, stream=True, **INCLUDE_USAGE, **OPTIONS)
        next(iter(it.stream(stream)))
    assert measured("openai", model) == CANCELLED | missing("cancelled")
    wait_until(lambda: fake.open_exchanges == 0)
    assert fake.exchanges[0].client_left


def test_sync_stream_that_breaks_off(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    fake.replies = [openai_stream(finish_reason=None, cut=True)]
    with pytest.raises(openai.APIConnectionError), track_call("openai", model, prompt=PROMPT) as it:
        list(it.stream(openai_client.chat.completions.create(model=model, stream=True, **INCLUDE_USAGE, **OPTIONS)))
    assert measured("openai", model) == ERROR | FIRST_TOKEN | failed("connection") | missing("error")


def test_two_requests_in_one_call_are_no_retry(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    """Only what follows a failure is one; and a failure is followed by one retry, not by all that comes later."""
    fake.replies = [openai_whole(), openai_error(500, **IMMEDIATELY), openai_whole()]
    with track_call("openai", model, prompt=PROMPT) as it:
        for _ in range(3):
            it.record(openai_client.chat.completions.create(model=model, **OPTIONS))
    assert len(fake.exchanges) == 4
    assert measured("openai", model)["llm_retries_total{reason=server}"] == 1


def test_retries_belong_to_the_innermost_call_and_then_to_the_outer_one(
    fake: FakeProvider, openai_client: openai.OpenAI, model: str
) -> None:
    fake.replies = [openai_whole(), openai_error(503), openai_whole()]
    with track_call("openai", model) as outer:
        with track_call("openai", "not listed") as inner:
            inner.record(openai_client.chat.completions.create(model=model, **OPTIONS))
        outer.record(openai_client.chat.completions.create(model=model, **OPTIONS))
    assert measured("openai", model)["llm_retries_total{reason=overloaded}"] == 1


def test_reader_that_stops_at_the_finish_reason(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    """The answer was whole; the usage after it was left unread."""
    fake.replies = [openai_stream()]
    with track_call("openai", model, prompt=PROMPT) as it:
        stream = openai_client.chat.completions.create(model=model, stream=True, **INCLUDE_USAGE, **OPTIONS)
        for chunk in it.stream(stream):
            if chunk.choices[0].finish_reason:
                break
    assert measured("openai", model) == SUCCESS | FIRST_TOKEN | finish("stop") | missing("cancelled")


def test_sync_anthropic(fake: FakeProvider, anthropic_client: anthropic.Anthropic, model: str) -> None:
    fake.replies = [anthropic_whole()]
    with track_call("anthropic", model, prompt=PROMPT) as it:
        it.record(anthropic_client.messages.create(model=model, max_tokens=9, **OPTIONS))
    assert it.usage == Usage(140, 30, cache_read=80, cache_write=40, cache_write_1h=10)
    assert measured("anthropic", model) == pytest.approx(SUCCESS | ANTHROPIC_TOKENS | finish("stop"))


def test_sync_anthropic_stream(fake: FakeProvider, anthropic_client: anthropic.Anthropic, model: str) -> None:
    fake.replies = [anthropic_stream()]
    with track_call("anthropic", model, prompt=PROMPT) as it:
        for _ in it.stream(anthropic_client.messages.create(model=model, max_tokens=9, stream=True, **OPTIONS)):
            pass
    assert measured("anthropic", model) == pytest.approx(SUCCESS | ANTHROPIC_TOKENS | STREAMED | finish("stop"))


def test_anthropic_stream_helper(fake: FakeProvider, anthropic_client: anthropic.Anthropic, model: str) -> None:
    """`messages.stream()` adds events of its own to those of the wire."""
    fake.replies = [anthropic_stream()]
    with (
        track_call("anthropic", model, prompt=PROMPT) as it,
        anthropic_client.messages.stream(model=model, max_tokens=9, **OPTIONS) as stream,
    ):
        for _ in it.stream(stream):
            pass
    assert measured("anthropic", model) == pytest.approx(SUCCESS | ANTHROPIC_TOKENS | STREAMED | finish("stop"))


def test_openai_stream_helper(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    """`chat.completions.stream()` wraps the chunks into events."""
    fake.replies = [openai_stream()]
    with (
        track_call("openai", model, prompt=PROMPT) as it,
        openai_client.chat.completions.stream(model=model, **INCLUDE_USAGE, **OPTIONS) as stream,
    ):
        for _ in it.stream(stream):
            pass
    assert measured("openai", model) == pytest.approx(SUCCESS | OPENAI_TOKENS | STREAMED | finish("stop"))


async def test_async_generator_dropped_without_closing(fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_stream(stall_after=3)]
    client = openai.AsyncOpenAI(api_key="k", base_url=fake.openai_url)

    async def answer() -> AsyncIterator[Any]:
        async with track_call("openai", model, prompt=PROMPT) as it:
            async for chunk in it.stream(
                await client.chat.completions.create(model=model, stream=True, **INCLUDE_USAGE, **OPTIONS)
            ):
                yield chunk

    generator = answer()
    await anext(generator)
    await anext(generator)
    del generator
    gc.collect()
    await until(lambda: fake.open_exchanges == 0 and "llm_requests_total" in str(measured("openai", model)))
    assert measured("openai", model) == CANCELLED | FIRST_TOKEN | missing("cancelled")
    await client.close()


# OpenAI's other APIs


def responses_object(status: str, **more: Any) -> Body:
    common = {"id": "resp_1", "object": "response", "created_at": 1, "model": "as-served", "output": [], "tools": []}
    return common | {"status": status, "parallel_tool_calls": True, "tool_choice": "auto", "error": None} | more


RESPONSES_ENDS = [
    ("completed", {"usage": RESPONSES_USAGE}, SUCCESS | OPENAI_TOKENS | finish("stop")),
    (
        "incomplete",
        {"usage": RESPONSES_USAGE, "incomplete_details": {"reason": "max_output_tokens"}},
        SUCCESS | OPENAI_TOKENS | finish("length"),
    ),
    (
        "failed",
        {"error": {"code": "rate_limit_exceeded", "message": "no"}},
        ERROR | failed("rate_limit") | missing("error"),
    ),
]


@pytest.mark.parametrize(("status", "more", "expected"), RESPONSES_ENDS, ids=lambda value: str(value)[:10])
@pytest.mark.parametrize("streamed", [False, True])
async def test_responses(
    streamed: bool,
    status: str,
    more: Body,
    expected: dict[str, float],
    fake: FakeProvider,
    async_client: openai.AsyncOpenAI,
    model: str,
) -> None:
    ended = responses_object(status, **more)
    delta = {"item_id": "1", "output_index": 0, "content_index": 0, "logprobs": []}
    events: list[Body] = [
        {"type": "response.created", "response": responses_object("in_progress")},
        {"type": "response.output_text.delta", "delta": "Hello", **delta},
        {"type": f"response.{status}", "response": ended},
    ]
    fake.replies = [Reply(events=[(event["type"], event) for event in events]) if streamed else Reply(body=ended)]
    async with track_call("openai", model, prompt=PROMPT) as it:
        if streamed:
            async for _ in it.stream(await async_client.responses.create(model=model, input=PROMPT, stream=True)):
                pass
            expected = expected | (FIRST_TOKEN if status == "failed" else STREAMED)
        else:
            it.record(await async_client.responses.create(model=model, input=PROMPT))
    assert measured("openai", model) == pytest.approx(expected)


async def test_embeddings(fake: FakeProvider, async_client: openai.AsyncOpenAI, model: str) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    fake.replies = [Reply(body={"object": "list", "data": data, "model": "as-served", "usage": usage})]
    async with track_call("openai", model, operation="embeddings", prompt=PROMPT) as it:
        it.record(await async_client.embeddings.create(model=model, input=PROMPT, encoding_format="float"))
    assert measured("openai", model) == pytest.approx(call("success", operation="embeddings") | tokens(7, 0, 7e-6))


async def test_completions_stream(fake: FakeProvider, async_client: openai.AsyncOpenAI, model: str) -> None:
    common = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "as-served"}
    choices = [{"index": 0, "text": text, "finish_reason": reason} for text, reason in (("Hello", None), ("", "stop"))]
    events: list[tuple[str | None, Body | str]] = [
        (None, common | {"choices": [choice], "usage": None}) for choice in choices
    ]
    fake.replies = [Reply(events=[*events, (None, common | {"choices": [], "usage": OPENAI_USAGE}), (None, "[DONE]")])]
    async with track_call("openai", model, operation="text_completion", prompt=PROMPT) as it:
        async for _ in it.stream(
            await async_client.completions.create(model=model, prompt=PROMPT, stream=True, **INCLUDE_USAGE)
        ):
            pass
    expected = call("success", operation="text_completion") | OPENAI_TOKENS | STREAMED | finish("stop")
    assert measured("openai", model) == pytest.approx(expected)


def test_several_choices(fake: FakeProvider, openai_client: openai.OpenAI, model: str) -> None:
    chunks: list[Body] = [
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], "usage": None},
        {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}], "usage": None},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None},
        {"choices": [], "usage": OPENAI_USAGE},
    ]
    fake.replies = [Reply(events=[(None, chunk) for chunk in chunks])]
    with track_call("openai", model, prompt=PROMPT) as it:
        for _ in it.stream(openai_client.chat.completions.create(model=model, stream=True, n=2, **OPTIONS)):
            pass
    expected = SUCCESS | OPENAI_TOKENS | STREAMED | finish("stop") | finish("length")
    assert measured("openai", model) == pytest.approx(expected)
