# SPDX-License-Identifier: Apache-2.0
"""LangChain's messages: AIMessage, the AIMessageChunks of a stream, and the results that wrap them.

    AIMessageChunk(content="Hi", usage_metadata=None)
    AIMessageChunk(content="", response_metadata={"finish_reason": "stop"},
        usage_metadata={"input_tokens": 9, "output_tokens": 9, "total_tokens": 18, "input_token_details": {...}})

Chunks are meant to be added up, and so is their usage.
"""

from __future__ import annotations

from typing import Any

from ..shapes import get, items
from .answer import Answer

_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")


def claims(thing: Any) -> bool:
    """True for a message, the dict of `with_structured_output(include_raw=True)` and the result of `generate`."""
    if isinstance(thing, dict):
        return claims(thing["raw"]) if "raw" in thing and "parsed" in thing else False
    return hasattr(thing, "response_metadata") or hasattr(thing, "generations")


def whole(answer: Answer, response: Any) -> None:
    """A complete message, or a result that contains one."""
    event(answer, response)
    answer.ended = True


def event(answer: Answer, message: Any) -> None:
    """A message or a chunk of one."""
    answer.last = message
    if isinstance(message, dict):
        return event(answer, message["raw"])
    if hasattr(message, "generations"):
        for number, generation in enumerate(_flat(message.generations)):
            _message(answer, getattr(generation, "message", None), number)
        if not answer.numbers:
            usage = get(getattr(message, "llm_output", None), "token_usage")
            answer.add_usage(usage)
        return None
    _message(answer, message, 0)
    return None


def _message(answer: Answer, message: Any, number: int) -> None:
    answer.id = get(message, "id") or answer.id
    metadata = get(message, "response_metadata")
    usage = get(message, "usage_metadata")
    if usage is None and not answer.numbers:
        usage = get(metadata, "token_usage") or get(metadata, "usage")
    if usage is not None:
        answer.add_usage(usage)
    extra = get(message, "additional_kwargs")
    if get(message, "content") or get(message, "tool_calls") or get(message, "tool_call_chunks"):
        answer.token()
    elif get(extra, "reasoning_content"):
        answer.token(reasoning=True)
    for name in _REASONS:
        answer.finish(get(metadata, name), number)
    if get(message, "chunk_position") == "last":
        answer.ended = True


def _flat(generations: Any) -> list[Any]:
    return [each for entry in items(generations) for each in (items(entry) or [entry])]
