"""Calls without any SDK: plain dicts, what cannot be read, what is refused, and how a call ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, cast

import pytest

from app.telemetry import llm as telemetry
from app.telemetry.llm import track_call
from tests.telemetry.llm.fake_provider import (
    OPENAI_USAGE,
    Body,
    anthropic_stream,
    anthropic_whole,
    openai_chunks,
    openai_whole,
)
from tests.telemetry.llm.measured import (
    ANTHROPIC_START,
    ANTHROPIC_TOKENS,
    CANCELLED,
    ERROR,
    FIRST_TOKEN,
    INCOMPLETE,
    OPENAI_TOKENS,
    PROMPT,
    STREAMED,
    SUCCESS,
    failed,
    finish,
    logged,
    measured,
    missing,
    tokens,
)


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
        with pytest.raises(TypeError, match="prompt must be a text"):
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
