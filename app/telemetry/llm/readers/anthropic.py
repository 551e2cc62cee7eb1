# SPDX-License-Identifier: Apache-2.0
"""Anthropic's messages, and the SDK's stream helper, which adds events of its own.

    {"type": "message_start", "message": {"id": "1", "usage": {"input_tokens": 25, "output_tokens": 1}}}
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}
    {"type": "message_stop"}

The usage comes in parts, each a running total: fields that a later event omits, or has as 0, keep their value. The
output in `message_start` is a guess. Bedrock's Converse API has other names for the same (`messageStop`, `metadata`).
"""

from __future__ import annotations

from typing import Any

from ..shapes import get, items
from .answer import Answer

_EVENTS = frozenset(
    (
        "message",
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "ping",
        "text",
        "input_json",
        "citation",
        "thinking",
        "signature",
        "compaction",
    )
)
_CONVERSE = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")


def claims(thing: Any) -> bool:
    """True for a message and for the events of its stream, also in Bedrock's Converse API."""
    if get(thing, "type") in _EVENTS or get(thing, "stop_reason") is not None or get(thing, "stopReason") is not None:
        return True
    return isinstance(thing, dict) and len(thing) == 1 and next(iter(thing)) in _CONVERSE


def whole(answer: Answer, message: Any) -> None:
    """A complete message."""
    answer.last = message
    answer.id = get(message, "id") or answer.id
    if (usage := get(message, "usage")) is not None:
        answer.usage(usage)
    content = get(message, "content") or get(get(get(message, "output"), "message"), "content")
    answer.has_content = answer.has_content or bool(items(content))
    answer.finish(get(message, "stop_reason") or get(message, "stopReason"))
    answer.ended = True


def event(answer: Answer, event: Any) -> None:
    """An event of a stream."""
    answer.last = event
    kind = get(event, "type")
    if kind == "content_block_delta":
        content(answer, event)
    elif kind == "message_start":
        message = get(event, "message")
        answer.id = get(message, "id")
        if (usage := get(message, "usage")) is not None:
            answer.usage(usage)
            answer.output_is_a_guess = True
    elif kind == "message_delta":
        _usage(answer, get(event, "usage"))
        answer.finish(get(get(event, "delta"), "stop_reason"))
    elif kind == "content_block_start":  # a tool's name, or a complete block
        block = get(event, "content_block")
        if get(block, "text") or get(block, "name") or get(block, "data"):
            answer.token(get(block, "type") == "redacted_thinking")
    elif kind == "message_stop":
        answer.ended = True
        _usage(answer, get(event, "amazon-bedrock-invocationMetrics"))
    elif kind == "message":
        whole(answer, event)
    elif isinstance(event, dict):
        _converse(answer, event)


def content(answer: Answer, event: Any) -> None:
    """A piece of output. Called for each event."""
    answer.last = event
    if answer.first_token is None:
        delta = get(event, "delta")
        if any(get(delta, name) for name in ("text", "thinking", "partial_json", "citation", "content", "type")):
            answer.token(get(delta, "type") == "thinking_delta")


def _usage(answer: Answer, usage: Any) -> None:
    if usage is not None:
        answer.usage(usage)
        if any(get(usage, name) for name in ("output_tokens", "outputTokens", "outputTokenCount", "iterations")):
            answer.output_is_a_guess = False


def _converse(answer: Answer, event: dict[str, Any]) -> None:
    """Bedrock's Converse API: each event is named by its only field."""
    if "contentBlockDelta" in event and answer.first_token is None:
        answer.token("reasoningContent" in (get(event["contentBlockDelta"], "delta") or ()))
    answer.finish(get(get(event, "messageStop"), "stopReason"))
    if (usage := get(get(event, "metadata"), "usage")) is not None:
        answer.usage(usage)
