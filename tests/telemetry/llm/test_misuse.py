"""Wrappers, agent loops, exceptions and prompts: what callers pass, and the errors if it cannot work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from app.telemetry.llm import NotAnAnswerError, Usage, prompt_length, track_call
from tests.telemetry.llm.fake_provider import (
    FakeProvider,
    Reply,
    anthropic_stream,
    anthropic_whole,
    openai_chunks,
    openai_stream,
    openai_whole,
)
from tests.telemetry.llm.measured import logged, measured
from tests.telemetry.llm.sdks import anthropic, openai
from tests.telemetry.llm.shapes.chat import completion, openai_usage

MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]
SUCCESS = "llm_requests_total{operation=chat,outcome=success}"
CANCELLED = "llm_requests_total{operation=chat,outcome=cancelled}"


@pytest.fixture
def client(fake: FakeProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0) as it:
        yield it


@pytest.fixture
def claude(fake: FakeProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=fake.anthropic_url, max_retries=0) as it:
        yield it


def errors(model: str) -> list[str]:
    return [name for name in measured("openai", model) if name.startswith("llm_errors_total")]


# Several answers in one block


def test_every_answer_of_an_agent_loop_counts(model: str) -> None:
    with track_call("openai", model) as call:
        call.record(completion(openai_usage(100, 10), "tool_calls") | {"id": "a"})
        call.record(completion(openai_usage(200, 20)) | {"id": "b"})
        for _ in call.stream(
            [chunk for _, chunk in openai_chunks([{"content": "x"}], "stop", openai_usage(300, 30), True)][:-1]
        ):
            pass
    numbers = measured("openai", model)
    assert numbers["llm_tokens_total{type=input}"] == 600
    assert numbers["llm_tokens_total{type=output}"] == 60
    assert numbers[SUCCESS] == 3
    assert numbers["llm_finish_reasons_total{reason=stop}"] == 2
    assert numbers["llm_finish_reasons_total{reason=tool_calls}"] == 1
    assert "llm_requests_in_progress" not in numbers


def test_the_same_answer_twice_counts_once(fake: FakeProvider, claude: anthropic.Anthropic, model: str) -> None:
    answer = completion(openai_usage(100, 10))
    with track_call("openai", model) as call:
        call.record(answer)
        call.record(answer)
    fake.replies = [anthropic_stream()]
    with (
        track_call("anthropic", model) as call,
        claude.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
    ):
        for _ in call.stream(stream):
            pass
        call.record(stream.get_final_message())
    assert measured("openai", model)[SUCCESS] == measured("anthropic", model)[SUCCESS] == 1
    assert measured("openai", model)["llm_tokens_total{type=input}"] == 100
    assert measured("anthropic", model)["llm_tokens_total{type=input}"] == 140


# Wrappers of the SDKs


def test_raw_and_streaming_responses(
    fake: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, model: str
) -> None:
    fake.replies = [openai_whole(), anthropic_whole(), openai_whole(), openai_stream()]
    with track_call("openai", model) as call:
        call.record(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    assert call.usage == Usage(120, 30, cache_read=100, reasoning=10)
    with track_call("anthropic", model) as call:
        call.record(claude.messages.with_raw_response.create(model="m", max_tokens=9, messages=MESSAGES))
    assert call.usage == Usage(140, 30, cache_read=80, cache_write=40, cache_write_1h=10)
    with (
        track_call("openai", model) as call,
        client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response,
    ):
        call.record(response)
    assert call.usage == Usage(120, 30, cache_read=100, reasoning=10)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, stream=True)
    with (
        pytest.raises(NotAnAnswerError, match=r"call.stream\(response.parse\(\)\)"),
        track_call("openai", model) as call,
    ):
        call.record(raw)
    assert not errors(model)


async def test_raw_responses_of_an_asynchronous_client(fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_whole()]
    async with openai.AsyncOpenAI(api_key="k", base_url=fake.openai_url) as client:
        async with track_call("openai", model) as call:
            call.record(await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
        assert call.usage == Usage(120, 30, cache_read=100, reasoning=10)
        with pytest.raises(NotAnAnswerError, match=r"await response\.parse"):
            async with (
                track_call("openai", model) as call,
                client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response,
            ):
                call.record(response)
        with pytest.raises(NotAnAnswerError, match="await the request"):
            async with track_call("openai", model) as call:
                call.record(client.chat.completions.create(model="m", messages=MESSAGES))  # type: ignore[unused-coroutine]
    assert not errors(model)


def test_what_is_no_answer_is_refused_with_advice(
    fake: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, model: str
) -> None:
    fake.replies = [anthropic_stream(), openai_stream(), openai_stream()]
    with (
        pytest.raises(NotAnAnswerError, match="not its text_stream"),
        claude.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
        track_call("openai", model) as call,
    ):
        list(call.stream(stream.text_stream))
    with pytest.raises(NotAnAnswerError, match=r"use call.record"), track_call("openai", model) as call:
        call.stream(completion(None))
    with pytest.raises(NotAnAnswerError, match=r"iterate over call.stream"), track_call("openai", model) as call:
        call.record(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    with pytest.raises(NotAnAnswerError, match="open it first"), track_call("openai", model) as call:
        call.stream(client.chat.completions.stream(model="m", messages=MESSAGES))  # type: ignore[call-overload]
    assert measured("openai", model)[CANCELLED] == 4
    assert not errors(model)


def test_an_unknown_response_is_logged(model: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with track_call("openai", model) as call:
        call.record(SimpleNamespace(answer="text"))
    assert logged(caplog) == ["LLM response of an unknown shape, not measured: SimpleNamespace"]


class BothWays:
    """Like LiteLLM's CustomStreamWrapper: for `for` and for `async for`."""

    def __init__(self) -> None:
        self._events = iter(
            [chunk for _, chunk in openai_chunks([{"content": "x"}], "stop", openai_usage(3, 4), True)][:-1]
        )

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._events)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._events)
        except StopIteration:
            raise StopAsyncIteration from None


async def test_streams_for_both_ways(model: str) -> None:
    with track_call("openai", model) as call:
        for _ in call.stream(BothWays()):  # type: ignore[attr-defined]
            pass
    assert call.usage == Usage(3, 4)
    async with track_call("openai", model) as call:
        async for _ in call.stream(BothWays()):
            pass
    assert (call.usage, call.outcome) == (Usage(3, 4), "success")


# Exceptions


class Parsed(BaseModel):
    answer: str


def test_usage_in_an_exception_counts_and_the_own_limit_is_no_failure(
    fake: FakeProvider, client: openai.OpenAI, model: str
) -> None:
    fake.replies = [openai_whole("length")]
    with pytest.raises(openai.LengthFinishReasonError), track_call("openai", model) as call:
        call.record(client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Parsed))
    assert (call.outcome, call.finish_reasons) == ("success", ["length"])
    assert call.usage == Usage(120, 30, cache_read=100, reasoning=10)
    assert not errors(model)

    fake.replies = [openai_whole("content_filter")]
    with pytest.raises(openai.ContentFilterFinishReasonError), track_call("openai", model) as call:
        call.record(client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Parsed))
    assert (call.outcome, call.error) == ("error", "content_filter")
    assert measured("openai", model)["llm_tokens_total{type=input}"] == 240


def test_a_request_that_the_sdk_refuses_is_no_failure_of_the_provider(
    fake: FakeProvider, claude: anthropic.Anthropic, model: str
) -> None:
    fake.replies = [anthropic_whole()]
    with pytest.raises(ValueError, match="Streaming is required"), track_call("openai", model) as call:
        call.record(claude.messages.create(model="m", max_tokens=900_000, messages=MESSAGES))
    assert fake.exchanges == []
    assert call.outcome == "cancelled"
    assert not errors(model)


def test_causes_and_groups(model: str) -> None:
    class OwnError(Exception):
        pass

    class RateLimitError(Exception):
        status_code = 429

    def fail(error: BaseException, cause: BaseException | None = None) -> Any:
        with pytest.raises(type(error)), track_call("openai", model) as call:
            raise error from cause
        return call.outcome, call.error

    assert fail(OwnError(), RateLimitError()) == ("error", "rate_limit")
    assert fail(ExceptionGroup("tasks", [RateLimitError()])) == ("error", "rate_limit")
    assert fail(OwnError()) == ("error", "other")
    assert fail(AttributeError()) == ("cancelled", None)
    assert fail(asyncio.CancelledError()) == ("cancelled", None)


@pytest.mark.parametrize("broken", ["{not json", '"text"', "[1]", "7"])
def test_malformed_chunks_are_errors(broken: str, fake: FakeProvider, client: openai.OpenAI, model: str) -> None:
    first = openai_chunks([{"content": "a"}], None, None, True)
    fake.replies = [Reply(events=[*first, (None, broken)])]
    with suppress(Exception), track_call("openai", model) as call:
        for chunk in call.stream(client.chat.completions.create(model="m", messages=MESSAGES, stream=True)):
            assert chunk.choices[0].delta.content is not None
    assert (call.outcome, call.error) == ("error", "server")


@pytest.mark.parametrize("choices", [[{"index": 0, "delta": None}], [{"index": 0, "delta": {"content": 7}}], 7])
def test_a_caller_that_stumbles_over_a_malformed_chunk(choices: Any, model: str) -> None:
    with suppress(Exception), track_call("openai", model) as call:
        for chunk in call.stream([{"choices": [{"index": 0, "delta": {"content": "a"}}]}, {"choices": choices}]):
            "" + chunk["choices"][0]["delta"]["content"]
    assert (call.outcome, call.error) == ("error", "server")


def test_a_caller_that_stumbles_by_itself(model: str) -> None:
    with suppress(KeyError), track_call("openai", model) as call:
        for _ in call.stream([{"choices": [{"index": 0, "delta": {"content": "a"}}]}]):
            raise KeyError
    assert (call.outcome, call.error) == ("cancelled", None)


# Prompts


@pytest.mark.parametrize(
    ("prompt", "length"),
    [
        ("Hello", 5),
        (7, 7),
        ([{"role": "user", "content": "Hello"}], 5),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], 14),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "x"}}],
                }
            ],
            5,
        ),
        ([{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}], 5),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "42"}]}
                    ],
                }
            ],
            2,
        ),
        ([{"role": "tool", "tool_call_id": "1", "content": "42"}], 2),
        ([{"type": "function_call_output", "call_id": "1", "output": "42"}], 2),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}], 0),
        ([{"role": "user", "parts": [{"text": "Hello"}]}], 5),
        ([{"role": "user", "content": [{"text": "Hello"}, {"toolResult": {"content": [{"text": "42"}]}}]}], 7),
        (["one", "two"], 6),
        ([SimpleNamespace(content="Hello", text="Hello")], 5),
        ({"role": "user", "content": "Hello"}, 5),
        ([], 0),
    ],
)
def test_prompt_length(prompt: Any, length: int, model: str) -> None:
    assert prompt_length(prompt) == length
    with track_call("openai", model, prompt=prompt):
        pass
    assert measured("openai", model).get("llm_prompt_length_characters_sum", 0) == length
