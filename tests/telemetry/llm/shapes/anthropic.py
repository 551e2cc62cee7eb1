"""Anthropic's messages: the usage in two parts, at the start and at the end of the stream."""

from __future__ import annotations

from typing import Any

from app.telemetry.llm import Usage
from tests.telemetry.llm.shapes.shape import Body, Shape


def messages(
    name: str,
    start: Any,
    end: Any,
    truth: Usage | None,
    *,
    kind: str = "text_delta",
    stop: Any = "end_turn",
    **more: Any,
) -> Shape:
    message: Body = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_sequence": None,
    }
    text = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
    events: list[Body] = [
        {"type": "message_start", "message": message | {"stop_reason": None, "usage": start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": kind, text: "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": end},
        {"type": "message_stop"},
    ]
    return Shape(name, "anthropic", events, truth, **more)


CACHED = {"cache_read_input_tokens": 80, "cache_creation_input_tokens": 40}
ANTHROPIC = [
    messages("Anthropic", {"input_tokens": 15, "output_tokens": 1}, {"output_tokens": 30}, Usage(15, 30)),
    messages(
        "cached",
        {
            "input_tokens": 20,
            "output_tokens": 1,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
            **CACHED,
        },
        {"output_tokens": 30},
        Usage(140, 30, cache_read=80, cache_write=40, cache_write_1h=10),
    ),
    # 10: parts of one usage
    messages(
        "Envoy's gateway, no input at the end",
        {"input_tokens": 15, "output_tokens": 1},
        {"input_tokens": 0, "output_tokens": 30, "cache_read_input_tokens": 0},
        Usage(15, 30),
    ),
    messages(
        "Vercel's gateway, zeros at the start",
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": 15, "output_tokens": 30},
        Usage(15, 30),
    ),
    messages(
        "searches on the server: the input grows",
        {"input_tokens": 15, "output_tokens": 1},
        {"input_tokens": 9015, "output_tokens": 30},
        Usage(9015, 30),
    ),
    messages(
        "compaction, outside of the top-level numbers",
        {"input_tokens": 15, "output_tokens": 1},
        {
            "input_tokens": 15,
            "output_tokens": 30,
            "iterations": [
                {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500, "cache_read_input_tokens": 0},
                {"type": "message", "input_tokens": 15, "output_tokens": 30, "cache_read_input_tokens": 0},
            ],
        },
        Usage(180015, 3530),
    ),
    messages(
        "a declined attempt and its fallback",
        {"input_tokens": 15, "output_tokens": 1},
        {
            "input_tokens": 15,
            "output_tokens": 30,
            "iterations": [
                {"type": "message", "input_tokens": 15, "output_tokens": 4},
                {"type": "fallback_message", "model": "other", "input_tokens": 15, "output_tokens": 30},
            ],
        },
        Usage(30, 34),
    ),
    messages(
        "only a guess at the output",
        {"input_tokens": 15, "output_tokens": 1},
        None,
        Usage(15, 1),
        missing="not_returned",
    ),
    messages(
        "thinking",
        {"input_tokens": 15, "output_tokens": 1},
        {"output_tokens": 30, "output_tokens_details": {"thinking_tokens": 12}},
        Usage(15, 30, reasoning=12),
        kind="thinking_delta",
    ),
    messages(
        "a gateway without a stop reason",
        {"input_tokens": 15, "output_tokens": 1},
        {"output_tokens": 30},
        Usage(15, 30),
        stop=None,
        finish=(),
    ),
    Shape(
        "overloaded on the way",
        "anthropic",
        [
            {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 15, "output_tokens": 1}}},
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        Usage(15, 1),
        finish=(),
        outcome="error",
        error="overloaded",
        first_token=False,
        missing="error",
    ),
]
