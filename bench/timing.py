"""What things that take turns differ by, with the noise of the machine, and verdicts that respect it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A median and its 95 % confidence interval, which is free of assumptions; of few values, their range."""

    value: float
    low: float
    high: float

    def show(self, unit: float) -> str:
        return f"{self.value / unit:.2f} ({self.low / unit:.2f} to {self.high / unit:.2f})"

    def text(self, digits: int) -> str:
        interval = f" ({self.low:.{digits}f} to {self.high:.{digits}f})" if self.low < self.high else ""
        return f"{self.value:.{digits}f}{interval}"

    def at_most(self, limit: float) -> str:
        return "met" if self.high <= limit else "**NOT met**" if self.low > limit else "**not proven**"

    def at_least(self, limit: float) -> str:
        return "met" if self.low >= limit else "**NOT met**" if self.high < limit else "**not proven**"


def estimate(values: Iterable[float]) -> Estimate:
    ordered = sorted(values)
    count = len(ordered)
    # The median lies between the k-th and the k-th last value with the probability of a binomial distribution.
    k = max(1, math.floor(count / 2 - 1.96 * math.sqrt(count) / 2))
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Estimate(middle, ordered[k - 1], ordered[count - k])


def difference(mine: Sequence[float], others: Sequence[float]) -> Estimate:
    """How much more `mine` takes; the numbers of one round belong together."""
    return estimate(a - b for a, b in zip(mine, others, strict=True))


def ratio(mine: Sequence[float], others: Sequence[float]) -> Estimate:
    """How many times the others' `mine` is; the numbers of one round belong together."""
    return estimate(a / b for a, b in zip(mine, others, strict=True))
