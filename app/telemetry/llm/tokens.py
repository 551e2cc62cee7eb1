# SPDX-License-Identifier: Apache-2.0
"""Counting the tokens of a call, and their cost."""

from __future__ import annotations

from .config import config
from .metrics import TOKEN_DETAIL, TOKEN_DETAILS, series_of
from .prices import Usage


def track_tokens(
    input_tokens: int,
    output_tokens: int,
    provider: str,
    model: str,
    *,
    cache_read: int = 0,
    cache_write: int = 0,
    reasoning: int = 0,
) -> None:
    """Count the tokens of one call and their cost, in code that cannot use `track_call`, which does this itself.

    Args:
        input_tokens: including cached tokens.
        output_tokens: including reasoning tokens.
        provider: the label `provider`, if `configure` allows it, otherwise `other`.
        model: the label `model`, likewise.
        cache_read: subset of `input_tokens` read from the provider's cache.
        cache_write: subset of `input_tokens` written to the provider's cache.
        reasoning: subset of `output_tokens`.

    Raises:
        ValueError: a number is negative, or a subset is larger than its total.
    """
    usage = Usage(input_tokens, output_tokens, cache_read, cache_write, 0, reasoning)
    if min(input_tokens, output_tokens, cache_read, cache_write, reasoning) < 0:
        raise ValueError("numbers of tokens must be 0 or more")
    if cache_read + cache_write > input_tokens or reasoning > output_tokens:
        raise ValueError("cached tokens must be included in input_tokens, reasoning tokens in output_tokens")
    count_usage(usage, provider, model)


def count_usage(usage: Usage, provider: str, model: str) -> None:
    """Add the usage of one call to the metrics."""
    series = series_of(config.pair(provider, model))
    all_input, all_output, call_input, call_output = series.tokens
    all_input.inc(usage.input_tokens)
    all_output.inc(usage.output_tokens)
    call_input.observe(usage.input_tokens)
    call_output.observe(usage.output_tokens)
    for detail, tokens in zip(TOKEN_DETAILS, (usage.cache_read, usage.cache_write, usage.reasoning), strict=True):
        if tokens:
            series.of(TOKEN_DETAIL, detail).inc(tokens)
    price = config.prices.get((provider, model))
    if price is None:
        series.unpriced.inc()
    else:
        series.cost.inc(price.cost(usage))
