# SPDX-License-Identifier: Apache-2.0
"""OpenAI's chat completions and completions, and every gateway with the same format.

    {"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}], "usage": null}
    {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": null}
    {"id": "1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}}

Gateways put usage and errors into a choice, a separate block or every chunk: each chunk is checked in all of these
places (docs/llm-providers.md has the sources).
"""

from __future__ import annotations

from typing import Any

from ..errors import error_in_answer
from ..shapes import fields, get, items
from .answer import Answer

# Other fields with usage than `usage` and a choice's `usage`: Bedrock, Gemini, Vertex.
_VENDOR_USAGE = ("amazon-bedrock-invocationMetrics", "usageMetadata", "usage_metadata")
_MINIMAX_CODES = {
    1001: "timeout",
    1002: "rate_limit",
    1039: "rate_limit",
    1004: "auth",
    1008: "auth",
    1026: "content_filter",
    1027: "content_filter",
    2013: "bad_request",
}
_VENDOR_BLOCKS = ("x_groq", "base_resp", *_VENDOR_USAGE)
_SPECIAL = ("error", *_VENDOR_BLOCKS)


def claims(thing: Any) -> bool:
    """True for objects of this protocol, and for a block that contains only the usage."""
    if isinstance(thing, dict):
        return "choices" in thing or any(name in thing for name in _VENDOR_USAGE)
    return hasattr(thing, "choices")


def whole(answer: Answer, response: Any) -> None:
    """A complete response."""
    event(answer, response)
    answer.ended = True
    if get(response, "choices") is None and answer.failure is None and get(response, "object") != "list":
        answer.outcome = "incomplete"  # without anything that the caller could use


def event(answer: Answer, chunk: Any) -> None:
    """A chunk or a complete response, with everything that it may contain."""
    answer.last = chunk
    found = fields(chunk)
    answer_id = found.get("id")
    choices = items(found.get("choices"))
    for position, choice in enumerate(choices):
        _choice(answer, fields(choice), position, answer_id)
    if usage := found.get("usage"):
        answer.usage(usage, answer_id)
    if error := found.get("error"):
        answer.failure = error_in_answer(error)
    for name in _VENDOR_BLOCKS:
        if block := found.get(name):
            _vendor_block(answer, name, block, answer_id)
    _remember_plain(answer, chunk, choices)


def _vendor_block(answer: Answer, name: str, block: Any, answer_id: Any) -> None:
    if name == "base_resp":
        if error := _minimax_error(block):
            answer.failure = error_in_answer(error)
    elif name == "x_groq":
        if usage := get(block, "usage"):
            answer.usage(usage, answer_id)
        if error := get(block, "error"):
            answer.failure = error_in_answer(error)
    else:
        answer.usage(block, answer_id)


def may_carry_usage(chunk: Any) -> bool:
    """False for a chunk without a field for usage: with `include_usage` each has one, although it may be empty."""
    return not items(_field(chunk, "choices")) or _has(chunk, "usage") or _field(chunk, "x_groq") is not None


def is_malformed(chunk: Any) -> bool:
    """True for a chunk that violates the protocol, so that the caller's code may fail on it."""
    choices = _field(chunk, "choices")
    if not isinstance(choices, list | tuple):
        return True
    for choice in choices:
        message = _field(choice, "delta") if _has(choice, "delta") else _field(choice, "message")
        if message is None and get(choice, "text") is None:
            return True
        content = _field(message, "content")
        if not isinstance(content, str | None) or isinstance(message, str | int | float | list):
            return True
        if content is not None and content != content.encode("utf-8", "replace").decode():  # lone surrogates
            return True
    return False


_OUTPUT = ("content", "tool_calls", "function_call", "refusal", "audio")
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")


def _choice(answer: Answer, choice: Any, position: int, answer_id: Any) -> None:
    number = choice.get("index")
    if not isinstance(number, int):
        number = position
    if number not in answer.finish_reasons:
        answer.open.add(number)
    message = fields(choice.get("delta") or choice.get("message"))
    if any(message.get(name) for name in _REASONING):
        answer.token(reasoning=True)
    elif any(message.get(name) for name in _OUTPUT) or choice.get("text"):
        answer.token()
    if reason := choice.get("finish_reason") or choice.get("finishReason"):  # the latter is Gemini's
        answer.finish(reason, number)
    if error := choice.get("error"):
        answer.failure = error_in_answer(error)
    if usage := choice.get("usage"):
        answer.usage(usage, answer_id)


def _minimax_error(status: Any) -> Any:
    """MiniMax reports failures with HTTP status 200: `{"base_resp": {"status_code": 1002, "status_msg": "..."}}`."""
    code = get(status, "status_code")
    return {"code": _MINIMAX_CODES.get(code, "server")} if isinstance(code, int) and code else None


def _remember_plain(answer: Answer, chunk: Any, choices: Any) -> None:
    """Remember the number of fields of a chunk that only contains text, so that the next ones can be read faster."""
    answer.plain_chunk = answer.plain_choice = -1
    if answer.first_token is not None and isinstance(chunk, dict) and len(choices) == 1:
        choice = choices[0]
        special = any(name in chunk for name in _SPECIAL)
        if isinstance(choice, dict) and not special and "usage" not in choice and "error" not in choice:
            answer.plain_chunk, answer.plain_choice = len(chunk), len(choice)


def _field(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _has(thing: Any, name: str) -> bool:
    """True if the field was in the response: an SDK's object has all fields, and records which ones were set."""
    if isinstance(thing, dict):
        return name in thing
    fields = getattr(thing, "model_fields_set", None)
    return hasattr(thing, name) if fields is None else name in fields
