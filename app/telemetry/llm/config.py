# SPDX-License-Identifier: Apache-2.0
"""Which providers and models may become labels, and the prices of their tokens. Everything else is `other`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .metrics import OTHER, series_of
from .peaks import peaks
from .prices import Price, read_prices

MAX_CALL_TOKENS = 10_000_000
"""Input or output tokens of a call beyond which a report is considered wrong: the longest context window offered."""


@dataclass(slots=True)
class Config:
    """What `configure` set last."""

    providers: frozenset[str] = frozenset()
    models: frozenset[tuple[str, str]] = frozenset()
    prices: Mapping[tuple[str, str], Price] = field(default_factory=dict)
    max_call_tokens: int = MAX_CALL_TOKENS

    def pair(self, provider: str, model: str) -> tuple[str, str]:
        """The values of the labels `provider` and `model` for a call."""
        if (provider, model) in self.models:
            return provider, model
        return (provider if provider in self.providers else OTHER), OTHER


config = Config()


def configure(
    models: Mapping[str, Iterable[str]],
    prices: str | Path | Mapping[tuple[str, str], Price] | None = None,
    operations: Iterable[str] = ("chat",),
    max_call_tokens: int = MAX_CALL_TOKENS,
) -> None:
    """Set which `{provider: [model, ...]}` may become labels, and what their tokens cost. Replaces earlier settings.

    Args:
        models: the allowed values of the labels. Their series start at 0, so that dashboards show 0 and `increase()`
            sees the first error.
        prices: the path of a TOML file (`read_prices`), or the table itself; models with a price are allowed, too.
        operations: the operations whose series start at 0.
        max_call_tokens: a usage report with more input or output tokens than this is not counted; the call is counted
            in llm_usage_missing_total with the reason `unreadable`.

    Raises:
        ValueError: the price table is invalid, or `max_call_tokens` is less than 1.
        TypeError: a single string instead of a list of names.
    """
    if max_call_tokens < 1:
        raise ValueError("max_call_tokens must be 1 or more")
    for names in (*models.values(), operations):
        if isinstance(names, str):
            raise TypeError(f"expected a list of names, such as [{names!r}]")
    table = read_prices(prices) if isinstance(prices, str | Path) else dict(prices or {})
    listed = [(provider, model) for provider, names in models.items() for model in names]
    config.models = frozenset(listed) | frozenset(table)
    config.providers = frozenset(provider for provider, _ in config.models)
    config.prices = table
    config.max_call_tokens = max_call_tokens
    for pair in listed:
        series_of(pair).start_at_zero(operations)
        peaks.touch(pair)
