# SPDX-License-Identifier: Apache-2.0
"""Token counts as providers report them, and the usage that they mean.

There are two steps. `reported` collects the numbers of one usage object under our names:

    {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 399,
     "completion_tokens_details": {"reasoning_tokens": 386}}
        -> {"input": 12, "output": 1, "total": 399, "reasoning": 386}

`resolved` decides what they mean: providers differ in whether the input includes cached tokens and the output includes
reasoning (see docs/llm-providers.md). `total_tokens` decides; without it, a part that is larger than its whole is not
included in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..config import config
from ..prices import Usage
from ..shapes import Attributes, fields, items

Numbers = dict[str, int]

UNREADABLE, UNREADABLE_PART = "unreadable", "unreadable_part"
"""In Numbers: a whole or a part was reported that is not a number of tokens, or an implausible one."""
BESIDE = "cache_beside"
"""In Numbers: by the names used, the input does not include cached tokens (Anthropic, Bedrock's Converse)."""

# The fields of wholes; of several, the first that is not 0 counts. Sources: docs/llm-providers.md.
_WHOLE = {
    "prompt_tokens": "input",
    "completion_tokens": "output",
    "total_tokens": "total",
    "input_tokens": "input",
    "output_tokens": "output",
    "inputTokens": "input",  # Bedrock's Converse
    "outputTokens": "output",
    "totalTokens": "total",
    "inputTokenCount": "input",  # Bedrock's invocation metrics
    "outputTokenCount": "output",
    "promptTokenCount": "input",  # Gemini
    "candidatesTokenCount": "output",
    "totalTokenCount": "total",
    "prompt_token_count": "input",
    "candidates_token_count": "output",
    "total_token_count": "total",
}
_RANK = {field: rank for rank, field in enumerate(_WHOLE)}
# The fields of parts, at the top of the usage or in its details; the largest of several counts.
_PART = {
    "cached_tokens": "cache_read",  # OpenAI in details, Moonshot at the top
    "cache_read": "cache_read",  # LangChain
    "cache_read_tokens": "cache_read",
    "cache_read_input_tokens": "cache_read",  # Anthropic, LiteLLM
    "prompt_cache_hit_tokens": "cache_read",  # DeepSeek
    "num_cached_tokens": "cache_read",  # Mistral
    "cacheReadInputTokens": "cache_read",
    "cacheReadInputTokenCount": "cache_read",
    "cachedContentTokenCount": "cache_read",
    "cached_content_token_count": "cache_read",
    "cache_write_tokens": "cache_write",  # OpenAI, OpenRouter
    "cache_creation": "cache_write",  # LangChain; elsewhere an object
    "cache_creation_tokens": "cache_write",  # LiteLLM
    "cache_creation_input_tokens": "cache_write",  # Anthropic, Alibaba Cloud, LiteLLM
    "cacheWriteInputTokens": "cache_write",
    "cacheWriteInputTokenCount": "cache_write",
    "ephemeral_5m_input_tokens": "cache_write_5m",
    "ephemeral_1h_input_tokens": "cache_write_1h",
    "reasoning_tokens": "reasoning",
    "thinking_tokens": "reasoning",  # Anthropic
    "reasoning": "reasoning",  # LangChain
    "thoughtsTokenCount": "reasoning",
    "thoughts_token_count": "reasoning",
}
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_DETAILS = frozenset(
    (
        *_INPUT_DETAILS,
        "completion_tokens_details",
        "output_tokens_details",
        "output_token_details",
        "cache_creation",
        "cache_creation_token_details",
    )
)


def number(value: Any) -> int | None:
    """Tokens: an integer, also in another notation (12.0, "12"). None for everything else.

    Also None beyond `configure(max_call_tokens=...)`: a gateway's mistake must not end up in the cost.
    """
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 32 else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value) or not value.is_integer():
            return None
        value = int(value)
    return value if 0 <= value <= config.max_call_tokens else None


def reported(usage: Any) -> Numbers:
    """The numbers of a usage object or dict under our names; empty if it reports none."""
    numbers: Numbers = {}
    found = fields(usage)
    rank: dict[str, int] = {}
    for field, value in _known(found):
        if value is None:
            continue
        if field in _WHOLE:
            name = _WHOLE[field]
            tokens = number(value)
            if tokens is None:
                numbers[UNREADABLE] = 1
            elif not numbers.get(name) or (tokens and _RANK[field] < rank[name]):
                numbers[name], rank[name] = tokens, _RANK[field]
        else:
            _part(numbers, field, value)
    if "cache_write_5m" in numbers or "cache_write_1h" in numbers:
        by_age = numbers.pop("cache_write_5m", 0) + numbers.get("cache_write_1h", 0)
        numbers["cache_write"] = numbers.get("cache_write") or by_age
    if rank.get("input") in _EXCLUSIVE and not any(found.get(name) for name in _INPUT_DETAILS):
        numbers[BESIDE] = 1
    return _with_iterations(numbers, found) if found.get("iterations") else numbers


_EXCLUSIVE = (_RANK["input_tokens"], _RANK["inputTokens"])


def _known(found: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(found, Attributes):
        return [(name, found.get(name)) for name in (*_WHOLE, *_PART, *_DETAILS)]
    return found.items()  # type: ignore[no-any-return]


def _part(numbers: Numbers, field: str, value: Any) -> None:
    if field in _DETAILS and not isinstance(value, int | float | str):
        for name, detail in _known(fields(value)):
            if detail is not None:
                _part(numbers, name, detail)
    elif field in _PART and value != "":
        name = _PART[field]
        tokens = number(value)
        if tokens is None:
            numbers[UNREADABLE_PART] = 1
        else:
            numbers[name] = max(tokens, numbers.get(name, 0))


def _with_iterations(numbers: Numbers, found: Any) -> Numbers:
    """Add Anthropic's list of sampling iterations: the usage of compaction or a declined fallback may be only there."""
    listed: Numbers = {}
    for entry in items(found.get("iterations")):
        for name, tokens in reported(entry).items():
            listed[name] = listed.get(name, 0) + tokens
    for name, tokens in listed.items():
        numbers[name] = max(tokens, numbers.get(name, 0))
    return numbers


def resolved(numbers: Numbers) -> tuple[Usage | None, str | None]:
    """The usage that the numbers mean, None if they are insufficient; and why it is incomplete, None if it is complete.

    The reason is one of llm_usage_missing_total: `not_returned` or `unreadable`.
    """
    given, made, total = numbers.get("input"), numbers.get("output"), numbers.get("total") or None
    read, written = numbers.get("cache_read", 0), numbers.get("cache_write", 0)
    cached, reasoning = read + written, numbers.get("reasoning", 0)
    if total is not None and given is None and made is not None and made <= total:
        given = total - made
    elif total is not None and made is None and given is not None and given <= total:
        made = total - given
    reason = None
    if given is None or made is None:
        reason = "unreadable" if UNREADABLE in numbers or total is not None else "not_returned"
        if given is None and made is None:
            return None, reason
    given, made = given or 0, made or 0
    input_parts = (cached, 0) if BESIDE in numbers else (0, cached)
    readings = [(given + c, made + r) for c in input_parts for r in (0, reasoning)]
    possible = [(inputs, outputs) for inputs, outputs in readings if inputs >= cached and outputs >= reasoning]
    agreeing = [reading for reading in possible if sum(reading) == total]
    inputs, outputs = (agreeing or possible)[0]
    if total is not None and not agreeing:
        if total > inputs + outputs:  # hidden reasoning that no other field reports: Gemini's
            outputs = total - inputs
        elif total != given + made:  # not even the total of what is neither cached nor reasoning
            reason = "unreadable"
    usage = Usage(inputs, outputs, read, written, min(numbers.get("cache_write_1h", 0), written), reasoning)
    return usage, "unreadable" if UNREADABLE_PART in numbers else reason


def read_usage(usage: Any) -> Usage | None:
    """The tokens in a usage object or dict of any provider listed in docs/llm-providers.md.

    In the result, input includes cached tokens and output includes reasoning. None if `usage` reports no tokens.
    """
    return resolved(reported(usage))[0]
