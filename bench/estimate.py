"""What repeated measurements say, and whether they say enough."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import comb


class Estimate:
    """The median of some measurements, and the interval that holds the true one with at least 95 % probability.

    The interval is made of the measurements' own ranks (that of the sign test) and assumes nothing about how they are
    distributed; with less than six of them it is their range, which holds it less often.
    """

    def __init__(self, values: Sequence[float]) -> None:
        ordered = sorted(values)
        count = len(ordered)
        outside, rank = 2 * 0.5**count, 0
        while rank + 1 < count // 2 and (outside := outside + 2 * comb(count, rank + 1) * 0.5**count) <= 0.05:
            rank += 1
        self.median = statistics.median(ordered)
        self.low, self.high = ordered[rank], ordered[-1 - rank]
        self.noise = (self.high - self.low) / 2

    def text(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class Targets:
    """A verdict for each target; met only if the whole interval is on the right side of it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.all_met = True

    def at_most(self, what: str, limit: float, measured: Estimate, digits: int = 2, *, stretch: bool = False) -> None:
        self._add(what, measured.text(digits), measured.high <= limit, measured.low > limit, stretch)

    def at_least(self, what: str, limit: float, measured: Estimate, digits: int = 2) -> None:
        self._add(what, measured.text(digits), measured.low >= limit, measured.high < limit, False)

    def _add(self, what: str, text: str, met: bool, failed: bool, stretch: bool) -> None:
        self.all_met &= met or stretch
        verdict = "met" if met else "**NOT met**" if failed else "**not proven**: within the noise"
        self.lines.append(f"| {what} | {text} | {verdict} |")
