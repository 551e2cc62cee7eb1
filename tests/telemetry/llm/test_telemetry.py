"""app/telemetry/llm as one who copied it uses it: with any client, on any kind of response."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from app.llm.service import PRICES
from app.telemetry import llm as telemetry
from app.telemetry.llm import Price, Usage, track_call, watch_http
from tests.telemetry.llm.fake_provider import (
    IMMEDIATELY,
    OPENAI_USAGE,
    Body,
    FakeProvider,
    Reply,
    anthropic_stream,
    anthropic_whole,
    openai_chunks,
    openai_error,
    openai_stream,
    openai_whole,
    until,
)
from tests.telemetry.llm.measured import (
    ANTHROPIC_START,
    ANTHROPIC_TOKENS,
    CANCELLED,
    ERROR,
    FIRST_TOKEN,
    INCOMPLETE,
    OPENAI_TOKENS,
    STREAMED,
    SUCCESS,
    call,
    failed,
    finish,
    logged,
    measured,
    missing,
    retried,
    seconds,
    tokens,
)
from tests.telemetry.llm.sdks import anthropic, openai

PROMPT = "Hello there"
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


# With the SDKs' synchronous clients


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
    fake: FakeProvider, openai_client: openai.OpenAI, model: str, wait_until: Any
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


# OpenAI's other APIs

RESPONSES_USAGE: Body = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 10},
    "total_tokens": 150,
}


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


# Without any SDK: plain dicts


def test_dicts(model: str) -> None:
    with track_call("openai", model, prompt=PROMPT) as it:
        it.record(openai_whole().body)
    assert measured("openai", model) == pytest.approx(SUCCESS | OPENAI_TOKENS | finish("stop"))
    with track_call("anthropic", model, prompt=PROMPT) as it:
        it.record(anthropic_whole().body)
    assert measured("anthropic", model) == pytest.approx(SUCCESS | ANTHROPIC_TOKENS | finish("stop"))


@pytest.mark.parametrize("asked", [True, False])
def test_dict_stream_of_openai(asked: bool, model: str) -> None:
    chunks = [chunk for _, chunk in openai_chunks([{"content": "Hi"}], "stop", OPENAI_USAGE, asked)][:-1]
    with track_call("openai", model, prompt=PROMPT) as it:
        assert list(it.stream(chunks)) == chunks
    reported = OPENAI_TOKENS | STREAMED if asked else FIRST_TOKEN | missing("not_requested")
    assert measured("openai", model) == pytest.approx(SUCCESS | reported | finish("stop"))


def test_dict_stream_of_anthropic(model: str) -> None:
    with track_call("anthropic", model, prompt=PROMPT) as it:
        for _ in it.stream([event for _, event in anthropic_stream().events or []]):
            pass
    assert measured("anthropic", model) == pytest.approx(SUCCESS | ANTHROPIC_TOKENS | STREAMED | finish("stop"))


def test_cumulative_usage_of_a_cancelled_stream(model: str) -> None:
    """vLLM's continuous_usage_stats reports the usage so far in each chunk: what was reported is counted."""
    usages = [{"prompt_tokens": 5, "completion_tokens": made, "total_tokens": 5 + made} for made in (1, 2, 3)]
    chunks: list[Body] = [
        {"choices": [{"delta": {"content": "x"}, "finish_reason": None}], "usage": usage} for usage in usages
    ]
    with track_call("openai", model, prompt=PROMPT) as it:
        stream = iter(it.stream(chunks))
        next(stream)
        next(stream)
    assert measured("openai", model) == pytest.approx(
        CANCELLED | FIRST_TOKEN | tokens(5, 2, 25e-6) | missing("cancelled")
    )


@pytest.mark.parametrize("thing", [{}, {"usage": None}, {"usage": {"total": 3}}, object(), None, "text", 7])
def test_unknown_responses_do_no_harm(thing: Any, model: str) -> None:
    with track_call("openai", model, prompt=PROMPT) as it:
        assert it.record(thing) is thing
    assert measured("openai", model) == SUCCESS | missing("not_returned")


class NastyChunk:
    @property
    def type(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("thing", [{}, {"choices": None}, {"type": 3}, {"type": [1]}, object(), None, 7, NastyChunk()])
def test_unknown_chunks_do_no_harm(thing: Any, model: str, caplog: pytest.LogCaptureFixture) -> None:
    with track_call("openai", model, prompt=PROMPT) as it:
        assert list(it.stream([thing, thing])) == [thing, thing]
    assert measured("openai", model) == INCOMPLETE | missing("not_returned")
    name = "RuntimeError" if isinstance(thing, NastyChunk) else "TypeError" if thing == {"type": [1]} else None
    assert logged(caplog) == ([f"LLM response of an unknown shape, not measured: {name}"] if name else [])


def test_an_error_that_cannot_be_read_is_the_callers_all_the_same(model: str, caplog: pytest.LogCaptureFixture) -> None:
    class NastyError(Exception):
        @property
        def code(self) -> str:
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(NastyError), track_call("openai", model, prompt=PROMPT):
            raise NastyError
    assert measured("openai", model) == {
        "llm_prompt_length_characters_count": 2,
        "llm_prompt_length_characters_sum": 2 * len(PROMPT),
        "llm_prompt_length_characters_max": len(PROMPT),
    }
    assert logged(caplog) == ["LLM call not measured: RuntimeError"] * 2


def test_retries_belong_to_the_innermost_call_and_then_to_the_outer_one(
    fake: FakeProvider, openai_client: openai.OpenAI, model: str
) -> None:
    fake.replies = [openai_whole(), openai_error(503), openai_whole()]
    with track_call("openai", model) as outer:
        with track_call("openai", "not listed") as inner:
            inner.record(openai_client.chat.completions.create(model=model, **OPTIONS))
        outer.record(openai_client.chat.completions.create(model=model, **OPTIONS))
    assert measured("openai", model)["llm_retries_total{reason=overloaded}"] == 1


def test_nothing_recorded(model: str) -> None:
    with track_call("openai", model, prompt=PROMPT):
        pass
    assert measured("openai", model) == SUCCESS | missing("not_returned")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "..."}, "rate_limit"),  # OpenAI's responses
        ({"error": {"code": "context_length_exceeded", "type": "invalid_request_error"}}, "context_length"),
        ({"error": {"code": None, "type": "server_error"}}, "server"),
        ({"error": {"code": 429, "message": "..."}}, "rate_limit"),  # vLLM's
        ({"type": "error", "error": {"type": "overloaded_error", "message": "..."}}, "overloaded"),  # Anthropic's
        ({"type": "error", "error": None}, "server"),
        ({"error": "something else"}, "server"),
    ],
)
@pytest.mark.parametrize("after_the_first_chunk", [False, True])
def test_an_error_in_the_place_of_a_chunk(error: Body, kind: str, after_the_first_chunk: bool, model: str) -> None:
    """Nothing raises; it is an error all the same."""
    before = [{"choices": [{"delta": {"content": "Hello"}}]}] if after_the_first_chunk else []
    with track_call("openai", model, prompt=PROMPT) as it:
        assert list(it.stream([*before, error])) == [*before, error]
    expected = ERROR | failed(kind) | missing("error") | (FIRST_TOKEN if after_the_first_chunk else {})
    assert measured("openai", model) == expected


def test_mistakes_are_refused_before_anything_is_counted(model: str) -> None:
    for prompt in ({1, 2}, 1.5, True, object(), b"text"):
        with pytest.raises(TypeError, match="prompt is a text"):
            track_call("openai", model, prompt=prompt)
    with pytest.raises(ValueError, match="0 or more"):
        track_call("openai", model, prompt=-1)
    for wrong in ({"models": {"openai": "gpt-5-mini"}}, {"models": {}, "operations": "chat"}):
        with pytest.raises(TypeError, match="expected a list of names"):
            telemetry.configure(**cast(dict[str, Any], wrong))
    assert measured("openai", model) == {}


def test_a_call_is_measured_once(model: str) -> None:
    with track_call("openai", model, prompt=PROMPT) as it:
        with pytest.raises(RuntimeError, match="already been measured"), it:
            pass
        it.record(openai_whole().body)
    with pytest.raises(RuntimeError, match="already been measured"), it:
        pass
    assert measured("openai", model) == pytest.approx(SUCCESS | OPENAI_TOKENS | finish("stop"))


def test_empty_stream(model: str) -> None:
    with track_call("openai", model, prompt=PROMPT) as it:
        assert list(it.stream([])) == []
    assert measured("openai", model) == INCOMPLETE | missing("not_returned")


# How a call ends


def test_trouble_of_the_caller_after_the_answer(model: str) -> None:
    with pytest.raises(KeyError), track_call("openai", model, prompt=PROMPT) as it:
        it.record(openai_whole().body)["no such thing"]
    assert measured("openai", model) == pytest.approx(SUCCESS | OPENAI_TOKENS | finish("stop"))


def test_trouble_of_the_caller_before_the_answer(model: str) -> None:
    with pytest.raises(KeyError), track_call("openai", model, prompt=PROMPT):
        raise KeyError
    assert measured("openai", model) == CANCELLED | missing("cancelled")


def test_generator_dropped_without_closing(model: str) -> None:
    def answer() -> Iterator[Any]:
        with track_call("anthropic", model, prompt=PROMPT) as it:
            yield from it.stream([event for _, event in anthropic_stream().events or []])

    generator = answer()
    next(generator)
    del generator
    gc.collect()
    assert measured("anthropic", model) == pytest.approx(CANCELLED | ANTHROPIC_START | missing("cancelled"))


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


class Clock:
    """Stands in for time.perf_counter: the test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("app.telemetry.llm.call.time.perf_counter", lambda: self.now)


@pytest.mark.parametrize(
    ("first", "counted"), [({"content": "x"}, 20), ({"reasoning_content": "x"}, 30), ({"reasoning": "x"}, 30)]
)
def test_times_are_those_of_the_formulas(
    first: Body, counted: int, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reasoning counts for the time per token if it was streamed, as the first token is then one of it."""
    clock = Clock(monkeypatch)

    def arriving() -> Iterator[Any]:
        for (_, chunk), wait in zip(
            openai_chunks([first, {"content": "x"}], "stop", OPENAI_USAGE, include_usage=True),
            (1, 1, 3, 4, 1, 0),
            strict=True,
        ):
            clock.now += wait
            yield chunk

    with track_call("openai", model) as it:
        clock.now += 1
        for _ in it.stream(arriving()):
            pass
        clock.now += 100  # what the caller does with the answer is not the model's time
    assert seconds("llm_time_to_first_token_seconds", "openai", model) == 3
    assert seconds("llm_request_duration_seconds", "openai", model) == 11
    assert seconds("llm_time_per_output_token_seconds", "openai", model) == pytest.approx(8 / (counted - 1))


@pytest.mark.parametrize(("kind", "counted"), [("text_delta", 20), ("thinking_delta", 30)])
def test_time_per_token_of_anthropic(kind: str, counted: int, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    usage = {"input_tokens": 5, "output_tokens": 30, "output_tokens_details": {"thinking_tokens": 10}}
    events: list[Body] = [
        {"type": "message_start", "message": {"usage": usage}},
        {"type": "content_block_delta", "delta": {"type": kind}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 30}},
    ]

    def arriving() -> Iterator[Body]:
        for event in events:
            clock.now += 2
            yield event

    with track_call("anthropic", model) as it:
        for _ in it.stream(arriving()):
            pass
    assert seconds("llm_time_per_output_token_seconds", "anthropic", model) == pytest.approx(2 / (counted - 1))


def test_duration_of_a_whole_answer_ends_with_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with track_call("openai", model) as it:
        clock.now += 3
        it.record(openai_whole().body)
        clock.now += 100
    assert seconds("llm_request_duration_seconds", "openai", model) == 3


# The reading of usage and errors


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": -3, "completion_tokens": "many"}, None),
        ({"input_tokens": 3, "output_tokens": 4}, Usage(3, 4)),
        ({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": None}, Usage(3, 4)),
        (RESPONSES_USAGE, Usage(120, 30, cache_read=100, reasoning=10)),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 8}},
            Usage(9, 1, cache_write=8),
        ),
        # A part larger than its whole lies beside it.
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 100},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(209, 5, cache_read=100, cache_write=100, reasoning=3),
        ),
        (
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 50},
            },
            Usage(6, 1, cache_write=5, cache_write_1h=5),
        ),
        ({"prompt_tokens": 10**400, "completion_tokens": 1}, Usage(0, 1)),
    ],
)
def test_read_usage(usage: Any, expected: Usage | None) -> None:
    assert telemetry.read_usage(usage) == expected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "connection"),
        (OSError(), "connection"),
        (ValueError("context length"), "other"),
        (type("ReadTimeout", (type("TimeoutException", (Exception,), {}),), {})(), "timeout"),
        (type("Refused", (Exception,), {"status_code": 413})("request too large"), "bad_request"),
        (type("Refused", (Exception,), {"status_code": 402})(), "auth"),
        (type("Refused", (Exception,), {"status_code": 408})(), "timeout"),
        (type("Refused", (Exception,), {"status_code": 418})(), "bad_request"),
        (type("Refused", (Exception,), {"status_code": 504})(), "timeout"),
        (type("Refused", (Exception,), {"status_code": 502})(), "server"),
        (type("Refused", (Exception,), {"status_code": "none"})(), "other"),
        # Ollama's client, for an error in the middle of a stream
        (type("ResponseError", (Exception,), {"status_code": -1, "error": "the runner has stopped"})(), "server"),
        (type("Quota", (Exception,), {"status_code": 429, "code": "insufficient_quota"})(), "rate_limit"),
        (type("ServerDisconnectedError", (type("ClientConnectionError", (Exception,), {}),), {})(), "connection"),
    ],
)
def test_error_type(error: Exception, kind: str) -> None:
    assert telemetry.error_type(error) == kind
    assert kind in telemetry.ERROR_TYPES


def test_a_stream_that_breaks_off_in_aiohttp_is_no_bad_request() -> None:
    error = type("ClientPayloadError", (Exception,), {})("Response payload is not completed")
    error.__cause__ = type("TransferEncodingError", (Exception,), {"code": 400})()  # of aiohttp itself
    assert telemetry.error_type(error) == "connection"


# The definitions


def _bounds(name: str, **labels: str) -> list[float]:
    return [
        float(sample.labels["le"])
        for family in REGISTRY.restricted_registry([f"{name}_bucket"]).collect()
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    ][:-1]


def test_buckets(model: str) -> None:
    labels = {"provider": "openai", "model": model}
    doubling = [0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84]
    assert _bounds("llm_request_duration_seconds", outcome="success", **labels) == doubling
    doubling = [0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48]
    assert _bounds("llm_time_to_first_token_seconds", **labels) == doubling
    per_token = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5]
    assert _bounds("llm_time_per_output_token_seconds", **labels) == per_token
    fourfold = [64, 256, 1024, 4096, 16384, 65536, 262144]
    assert _bounds("llm_request_tokens", type="input", **labels) == fourfold
    assert _bounds("llm_prompt_length_characters", **labels) == fourfold


def test_listed_models_start_at_zero(model: str) -> None:
    """So that a dashboard shows 0, and the first error is an increase."""
    samples = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name not in ("provider", "model"))): (
            sample.value
        )
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("provider") == "openai" and sample.labels.get("model") == model
        if not sample.name.endswith("_created")
    }
    assert set(samples.values()) == {0.0}
    for outcome in ("success", "error", "cancelled", "incomplete"):
        assert ("llm_requests_total", "chat", outcome) in samples
        assert ("llm_request_duration_seconds_count", "chat", outcome) in samples
    for kind in telemetry.ERROR_TYPES:
        assert ("llm_errors_total", kind) in samples
        assert ("llm_retries_total", kind) in samples
    for kind in ("input", "output"):
        assert ("llm_tokens_total", kind) in samples
        assert ("llm_request_tokens_count", kind) in samples
    for name in (
        "llm_requests_in_progress",
        "llm_prompt_length_characters_max",
        "llm_prompt_length_characters_count",
        "llm_time_to_first_token_seconds_count",
        "llm_time_per_output_token_seconds_count",
        "llm_cost_usd_total",
        "llm_unpriced_requests_total",
    ):
        assert (name,) in samples
    assert {name[1] for name in samples if name[0] == "llm_finish_reasons_total"} == set(telemetry.FINISH_REASONS)
    assert {name[1] for name in samples if name[0] == "llm_usage_missing_total"} == set(telemetry.USAGE_MISSING_REASONS)
    assert {name[1] for name in samples if name[0] == "llm_token_details_total"} == set(telemetry.TOKEN_DETAILS)


# Tokens and their price


def test_track_tokens(model: str) -> None:
    telemetry.track_tokens(100, 20, "openai", model)
    expected = tokens(100, 20, (100 * 1 + 20 * 10) / 1e6)
    assert measured("openai", model) == pytest.approx(expected)
    telemetry.track_tokens(100, 20, "anthropic", model, cache_read=50, cache_write=10, reasoning=5)
    expected = tokens(100, 20, (40 * 1 + 50 * 0.1 + 10 * 1.25 + 20 * 10) / 1e6, 50, 10, 5)
    assert measured("anthropic", model) == pytest.approx(expected)
    telemetry.track_tokens(10, 5, "simulated", model, cache_read=10, reasoning=5)  # a part may be the whole
    assert measured("simulated", model)["llm_token_details_total{detail=output_reasoning}"] == 5


@pytest.mark.parametrize(
    "wrong", [{"input_tokens": -1}, {"output_tokens": -1}, {"cache_read": 11}, {"reasoning": 11}, {"cache_write": -1}]
)
def test_track_tokens_refuses_nonsense(wrong: dict[str, int], model: str) -> None:
    arguments: dict[str, Any] = {"input_tokens": 10, "output_tokens": 10, "provider": "openai", "model": model} | wrong
    with pytest.raises(ValueError, match="tokens"):
        telemetry.track_tokens(**arguments)
    assert measured("openai", model) == {}


def test_prices_that_are_left_out() -> None:
    usage = Usage(input_tokens=1000, output_tokens=0, cache_read=100, cache_write=200, cache_write_1h=50)
    assert Price(2, 0).cost(usage) == pytest.approx(1000 * 2 / 1e6)
    assert Price(2, 0, cache_read=1).cost(usage) == pytest.approx((900 * 2 + 100) / 1e6)
    assert Price(2, 0, cache_write=3).cost(usage) == pytest.approx((800 * 2 + 200 * 3) / 1e6)
    assert Price(2, 0, cache_write_1h=4).cost(usage) == pytest.approx((950 * 2 + 50 * 4) / 1e6)


def test_the_price_table_is_readable() -> None:
    table = telemetry.read_prices(PRICES)
    assert {provider for provider, _ in table} == {"openai", "anthropic", "simulated"}
    for price in table.values():
        assert price.cost(Usage(0, 1_000_000)) == price.output > price.input > (price.cache_read or 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("[openai", "Expected"),
        ("openai = 3", 'expected \\[provider."model"\\]'),
        ('[openai."m"]\ninput = 1', "give input and output"),
        ("[openai]\nm = 1", "give input and output"),
        ('[openai."m"]\ninput = 1\noutput = 2\nsurcharge = 3', "give input and output"),
        ('[openai."m"]\ninput = "1"\noutput = 2', "a price is a number"),
        ('[openai."m"]\ninput = -1\noutput = 2', "a price is a number"),
        ('[openai."m"]\ninput = nan\noutput = 2', "a price is a number"),
        ('[openai."m"]\ninput = true\noutput = 2', "a price is a number"),
    ],
)
def test_bad_price_tables(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        telemetry.read_prices(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# Copied alone

ALONE = """
import sys
before = set(sys.modules)
import llm
from prometheus_client import generate_latest

llm.configure({"mine": ["small"]}, {("mine", "small"): llm.Price(1, 2)})
with llm.track_call("mine", "small", prompt="four") as call:
    call.record({"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "choices": [{"finish_reason": "stop"}]})
llm.track_tokens(5, 6, "mine", "unheard of")
sys.stdout.write(generate_latest().decode())
sys.stderr.write(" ".join({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""


def test_copied_alone(tmp_path: Path) -> None:
    """One folder, prometheus_client, nothing else."""
    shutil.copytree(Path(telemetry.__file__).parent, tmp_path / "llm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "service.py").write_text(ALONE)
    done = subprocess.run([sys.executable, "service.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.split()) == {"llm", "prometheus_client"}
    for line in (
        'llm_tokens_total{model="small",provider="mine",type="input"} 3.0',
        'llm_tokens_total{model="other",provider="mine",type="output"} 6.0',
        'llm_cost_usd_total{model="small",provider="mine"} 1.1e-05',
        'llm_prompt_length_characters_max{model="small",provider="mine"} 4.0',
        'llm_unpriced_requests_total{model="other",provider="mine"} 1.0',
    ):
        assert line in done.stdout.splitlines()
