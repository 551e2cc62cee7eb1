# SPDX-License-Identifier: Apache-2.0
"""Which providers and models may become labels, and what their tokens cost. Everything else is `other`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import metrics
from .peaks import peaks
from .prices import Price, read_prices


@dataclass(slots=True)
class Config:
    """What `configure` set last."""

    providers: frozenset[str] = frozenset()
    models: frozenset[tuple[str, str]] = frozenset()
    prices: Mapping[tuple[str, str], Price] = field(default_factory=dict)

    def pair(self, provider: str, model: str) -> tuple[str, str]:
        """The values of the labels `provider` and `model` for a call."""
        if (provider, model) in self.models:
            return provider, model
        return (provider if provider in self.providers else metrics.OTHER), metrics.OTHER


config = Config()


def configure(
    models: Mapping[str, Iterable[str]],
    prices: str | Path | Mapping[tuple[str, str], Price] | None = None,
    operations: Iterable[str] = ("chat",),
) -> None:
    """Say which `{provider: [model, ...]}` may become labels, and what their tokens cost.

    Models with a price may become labels too. The series of `models` start at 0 at once, so that dashboards show 0
    and the first error is seen as an increase. A second call replaces what the first one said.

    Raises ValueError if the price table is unreadable, TypeError for a single name where a list belongs.
    """
    for names in (*models.values(), operations):
        if isinstance(names, str):
            raise TypeError(f"a list of names, please: [{names!r}]")
    table = read_prices(prices) if isinstance(prices, str | Path) else dict(prices or {})
    listed = [(provider, model) for provider, names in models.items() for model in names]
    config.models = frozenset(listed) | frozenset(table)
    config.providers = frozenset(provider for provider, _ in config.models)
    config.prices = table
    for pair in listed:
        _start_at_zero(pair, operations)


def _start_at_zero(pair: tuple[str, str], operations: Iterable[str]) -> None:
    for metric in (
        metrics.TIME_TO_FIRST_TOKEN,
        metrics.TIME_PER_OUTPUT_TOKEN,
        metrics.PROMPT_LENGTH,
        metrics.IN_PROGRESS,
        metrics.COST,
        metrics.UNPRICED,
    ):
        metric.labels(*pair)
    for kind in ("input", "output"):
        metrics.TOKENS.labels(*pair, kind)
        metrics.REQUEST_TOKENS.labels(*pair, kind)
    for metric, values in (
        (metrics.TOKEN_DETAIL, metrics.TOKEN_DETAILS),
        (metrics.ERRORS, metrics.ERROR_TYPES),
        (metrics.RETRIES, metrics.ERROR_TYPES),
        (metrics.FINISHES, metrics.FINISH_REASONS),
        (metrics.USAGE_MISSING, metrics.USAGE_MISSING_REASONS),
    ):
        for value in values:
            metric.labels(*pair, value)
    for operation in operations:
        for outcome in metrics.OUTCOMES:
            metrics.REQUESTS.labels(*pair, operation, outcome)
            metrics.DURATION.labels(*pair, operation, outcome)
    peaks.touch(pair)
