# SPDX-License-Identifier: Apache-2.0
"""Prices of tokens for each model, read from TOML.

[openai."gpt-5-mini"]
input = 0.25        # US dollars per million tokens
output = 2.0
cache_read = 0.025  # optional, as are cache_write and cache_write_1h
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. The cache fields are subsets of the input, the reasoning is a subset of the output."""

    input_tokens: int
    output_tokens: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0  # subset of cache_write that is kept for an hour, at a separate price
    reasoning: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. None: cache prices default to `input`, `cache_write_1h` to `cache_write`."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None

    def cost(self, usage: Usage) -> float:
        """US dollars for `usage`: each token counts once, at the price of its kind."""
        cache_read = self.input if self.cache_read is None else self.cache_read
        cache_write = self.input if self.cache_write is None else self.cache_write
        cache_write_1h = cache_write if self.cache_write_1h is None else self.cache_write_1h
        return (
            (usage.input_tokens - usage.cache_read - usage.cache_write) * self.input
            + usage.cache_read * cache_read
            + (usage.cache_write - usage.cache_write_1h) * cache_write
            + usage.cache_write_1h * cache_write_1h
            + usage.output_tokens * self.output
        ) / 1e6


def read_prices(path: str | Path) -> dict[tuple[str, str], Price]:
    """Read a price table: TOML, one table per `[provider."model"]`, US dollars per million tokens.

    Raises:
        ValueError: the file is missing or not TOML, or a price is invalid; the message names the entry.
    """
    try:
        providers = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"price table {path}: {error}") from error
    table: dict[tuple[str, str], Price] = {}
    for provider, models in providers.items():
        if not isinstance(models, dict):
            raise ValueError(f'price table {path}: expected [provider."model"] tables, found {provider}')
        for model, entry in models.items():
            where = f'price table {path}: [{provider}."{model}"]'
            try:
                price = Price(**entry)
            except TypeError:
                raise ValueError(
                    f"{where}: give input and output; cache_read, cache_write and cache_write_1h are optional"
                ) from None
            if not all(
                isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
                for value in entry.values()
            ):
                raise ValueError(f"{where}: a price must be a number of US dollars per million tokens, 0 or more")
            table[provider, model] = price
    return table
