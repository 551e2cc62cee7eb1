# SPDX-License-Identifier: Apache-2.0
"""Reading answers by their shape, as objects or as dicts, without importing anything of the SDKs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import ERROR_CODES, status_error_type
from .metrics import OTHER
from .prices import Usage

if TYPE_CHECKING:
    from .call import Call

logger = logging.getLogger(__name__)

_MOST_TOKENS = 10**12  # of a call; anything beyond is nonsense


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _number(thing: Any, name: str) -> int:
    value = _get(thing, name)
    return value if isinstance(value, int) and 0 < value <= _MOST_TOKENS else 0


def _consistent(usage: Usage) -> Usage:
    """No part larger than its whole, whatever the server says: a cost below 0 cannot be counted."""
    cache_read = min(usage.cache_read, usage.input_tokens)
    cache_write = min(usage.cache_write, usage.input_tokens - cache_read)
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        cache_read,
        cache_write,
        min(usage.cache_write_1h, cache_write),
        min(usage.reasoning, usage.output_tokens),
    )


def read_usage(usage: Any) -> Usage | None:
    """The tokens in a usage object or dict of OpenAI (chat, completions, embeddings, responses) or Anthropic.

    OpenAI's input includes what came from the cache; Anthropic's does not, so it is added here. None if `usage` is
    neither.
    """
    found = _read_usage(usage)
    return None if found is None else _consistent(found)


def _read_usage(usage: Any) -> Usage | None:
    if _get(usage, "prompt_tokens") is not None:
        details = _get(usage, "prompt_tokens_details")
        return Usage(
            _number(usage, "prompt_tokens"),
            _number(usage, "completion_tokens"),
            cache_read=_number(details, "cached_tokens"),
            cache_write=_number(details, "cache_write_tokens"),
            reasoning=_number(_get(usage, "completion_tokens_details"), "reasoning_tokens"),
        )
    if _get(usage, "input_tokens") is None:
        return None
    output_details = _get(usage, "output_tokens_details")
    details = _get(usage, "input_tokens_details")
    if details is not None:
        return Usage(
            _number(usage, "input_tokens"),
            _number(usage, "output_tokens"),
            cache_read=_number(details, "cached_tokens"),
            cache_write=_number(details, "cache_write_tokens"),
            reasoning=_number(output_details, "reasoning_tokens"),
        )
    cache_read = _number(usage, "cache_read_input_tokens")
    cache_write = _number(usage, "cache_creation_input_tokens")
    return Usage(
        _number(usage, "input_tokens") + cache_read + cache_write,
        _number(usage, "output_tokens"),
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=_number(_get(usage, "cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning=_number(output_details, "thinking_tokens"),
    )


_FINISH_REASON = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def read_whole(call: Call, response: Any) -> None:
    usage = _get(response, "usage")
    if usage is not None:
        call.usage = read_usage(usage)
    for choice in _get(response, "choices") or ():
        _note_finish(call, _get(choice, "finish_reason"))
    _note_finish(call, _get(response, "stop_reason"))
    if _get(response, "object") == "response":
        _read_response_object(call, response)


def _note_finish(call: Call, reason: Any) -> None:
    if reason is not None:
        call.finish_reasons.append(_FINISH_REASON.get(reason, OTHER))


def reader(chunk: Any) -> Callable[[Call, Any], None]:
    return _read_choices if _get(chunk, "choices") is not None else _read_event


def unreadable(error: Exception) -> Callable[[Call, Any], None]:
    """What no reader understands goes unmeasured, and to the caller as it is: telemetry must not break a call."""
    logger.warning("LLM response of an unknown shape, not measured: %s", type(error).__name__)
    return lambda call, chunk: None


def _read_choices(call: Call, chunk: Any) -> None:
    """A chunk of OpenAI's chat completions or completions. Runs per chunk: keep it short."""
    call._last_chunk = chunk
    if isinstance(chunk, dict):
        choices, usage = chunk.get("choices"), chunk.get("usage")
    else:
        choices, usage = getattr(chunk, "choices", None), getattr(chunk, "usage", None)
    if choices:
        for choice in choices:
            reason = choice.get("finish_reason") if isinstance(choice, dict) else choice.finish_reason
            if reason is not None:
                _note_finish(call, reason)
        if call._first_token is None:
            _look_for_first_token(call, choices)
    else:
        _stream_error(call, chunk)
    if usage is not None:
        call.usage = read_usage(usage)


def _look_for_first_token(call: Call, choices: Any) -> None:
    """The first chunk often carries the role alone: the first token is the first chunk that carries some output."""
    for choice in choices:
        delta = _get(choice, "delta")
        # Hidden reasoning that servers like vLLM do stream
        reasoning = _get(delta, "reasoning_content") or _get(delta, "reasoning")
        if (
            reasoning
            or _get(delta, "content")
            or _get(delta, "tool_calls")
            or _get(delta, "refusal")
            or _get(choice, "text")
        ):
            call._first_token = time.perf_counter()
            call._reasoning_streamed = bool(reasoning)
            return


def _read_event(call: Call, event: Any) -> None:
    """An event of Anthropic's messages, OpenAI's responses or an SDK's stream helper. Runs per chunk."""
    call._last_chunk = event
    handler = _EVENTS.get(event.get("type") if isinstance(event, dict) else getattr(event, "type", None))
    if handler is not None:
        handler(call, event)


def _content(call: Call, event: Any) -> None:
    if call._first_token is None:
        call._first_token = time.perf_counter()
        call._reasoning_streamed = _get(_get(event, "delta"), "type") == "thinking_delta"


def _message_start(call: Call, event: Any) -> None:
    _merge_usage(call, _get(_get(event, "message"), "usage"))


def _message_delta(call: Call, event: Any) -> None:
    _merge_usage(call, _get(event, "usage"))
    _note_finish(call, _get(_get(event, "delta"), "stop_reason"))


def _merge_usage(call: Call, usage: Any) -> None:
    """Anthropic tells the usage in parts: what a later event leaves out stands as an earlier one said."""
    for name in (
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "output_tokens_details",
    ):
        value = _get(usage, name)
        if value is not None:
            call._usage_fields[name] = value


def _response_end(call: Call, event: Any) -> None:
    _read_response_object(call, _get(event, "response"))


def _read_response_object(call: Call, response: Any) -> None:
    """The end of a call of OpenAI's responses API."""
    usage = _get(response, "usage")
    if usage is not None:
        call.usage = read_usage(usage)
    status = _get(response, "status")
    if status == "failed":
        call._failure = ERROR_CODES.get(_get(_get(response, "error"), "code"), "server")
    elif status == "incomplete":
        _note_finish(call, _get(_get(response, "incomplete_details"), "reason") or OTHER)
    elif status == "completed":
        _note_finish(call, status)


def _stream_error(call: Call, chunk: Any) -> None:
    """An error in the place of a chunk: OpenAI's {"error": {...}} and {"type": "error", "code": ...}, Anthropic's."""
    error = _get(chunk, "error")
    if error is None and _get(chunk, "type") != "error":
        return
    call._failure = "server"
    for code in (_get(chunk, "code"), _get(error, "code"), _get(error, "type")):
        if isinstance(code, int) and code >= 400:
            call._failure = status_error_type(code)
            return
        if isinstance(code, str) and code in ERROR_CODES:
            call._failure = ERROR_CODES[code]
            return


_EVENTS: dict[Any, Callable[[Call, Any], None]] = {
    "content_block_delta": _content,
    "message_start": _message_start,
    "message_delta": _message_delta,
    "response.output_text.delta": _content,
    "response.function_call_arguments.delta": _content,
    "response.refusal.delta": _content,
    "response.completed": _response_end,
    "response.incomplete": _response_end,
    "response.failed": _response_end,
    "error": _stream_error,
    None: _stream_error,
    "chunk": lambda call, event: _read_choices(call, _get(event, "chunk")),
}


def may_carry_usage(chunk: Any) -> bool:
    """False for a chunk of OpenAI's without a usage field: with include_usage every chunk has one, if an empty one."""
    if _get(chunk, "choices") is None:
        return True
    return "usage" in (chunk if isinstance(chunk, dict) else getattr(chunk, "model_fields_set", ()))
