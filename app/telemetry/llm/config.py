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
"""Input or output of a call beyond which a report is taken for a mistake: the longest context window on offer."""


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

    Models with a price may become labels too. The series of `models` start at 0 at once, so that dashboards show 0
    and the first error is seen as an increase. A report of more than `max_call_tokens` for the input or the output of
    one call is not counted; the call is counted in llm_usage_missing_total with the reason `unreadable`.

    Raises:
        ValueError: the price table is unreadable, or `max_call_tokens` is less than 1.
        TypeError: a single name where a list belongs.
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
