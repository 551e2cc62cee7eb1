"""LangChain's messages, whole and streamed, as its chat models make them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult

from app.telemetry.llm import Usage, prompt_length, track_call
from tests.telemetry.llm.measured import measured

USAGE = UsageMetadata(
    input_tokens=120,
    output_tokens=30,
    total_tokens=150,
    input_token_details=InputTokenDetails(cache_read=100, cache_creation=10),
    output_token_details=OutputTokenDetails(reasoning=10),
)
TRUTH = Usage(120, 30, cache_read=100, cache_write=10, reasoning=10)


def part(given: int, made: int) -> UsageMetadata:
    return UsageMetadata(input_tokens=given, output_tokens=made, total_tokens=given + made)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"finish_reason": "stop"}, "stop"),  # langchain-openai
        ({"stop_reason": "max_tokens"}, "length"),  # langchain-anthropic
        ({"stopReason": "tool_use"}, "tool_calls"),  # langchain-aws
        ({"done_reason": "stop"}, "stop"),  # langchain-ollama
        ({"finish_reason": "MAX_TOKENS"}, "length"),  # langchain-google-genai
    ],
)
def test_whole(metadata: dict[str, Any], reason: str, model: str) -> None:
    message = AIMessage("Hello", usage_metadata=USAGE, response_metadata=metadata)
    for answer in (
        message,
        {"raw": message, "parsed": None, "parsing_error": None},
        LLMResult(generations=[[ChatGeneration(message=message)]]),
    ):
        with track_call("openai", model) as call:
            call.record(answer)
        assert (call.usage, call.finish_reasons, call.outcome) == (TRUTH, [reason], "success")


def test_streamed_by_parts(model: str) -> None:
    """langchain-anthropic has the input in the first chunk and the output in the last; the parts are to be added."""
    chunks = [
        AIMessageChunk(content="", usage_metadata=part(120, 0)),
        AIMessageChunk(content="Hel"),
        AIMessageChunk(content="lo"),
        AIMessageChunk(content="", usage_metadata=part(0, 30), response_metadata={"stop_reason": "end_turn"}),
    ]
    with track_call("openai", model) as call:
        assert list(call.stream(chunks)) == chunks
    whole: AIMessageChunk = sum(chunks[1:], chunks[0])
    assert whole.usage_metadata is not None
    assert call.usage == Usage(whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"])
    assert (call.usage, call.finish_reasons, call.outcome) == (Usage(120, 30), ["stop"], "success")
    assert measured("openai", model)["llm_time_to_first_token_seconds_count"] == 1


def test_cut(model: str) -> None:
    with track_call("openai", model) as call:
        list(call.stream([AIMessageChunk(content="", usage_metadata=part(120, 0)), AIMessageChunk(content="Hel")]))
    assert (call.usage, call.outcome) == (Usage(120, 0), "incomplete")
    assert measured("openai", model)["llm_usage_missing_total{reason=not_returned}"] == 1


def test_prompt() -> None:
    assert prompt_length([AIMessage("Hello")]) == 5
