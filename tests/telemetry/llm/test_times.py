"""Durations, times to the first token and times per token, by a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.telemetry.llm import track_call
from tests.telemetry.llm.fake_provider import OPENAI_USAGE, Body, openai_chunks, openai_whole
from tests.telemetry.llm.measured import seconds


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
