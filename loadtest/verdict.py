"""Thresholds per route, and the table that compares a run with them."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.record import BUCKETS, Key, Series

THRESHOLDS = Path(__file__).with_name("thresholds.toml")


@dataclass(frozen=True)
class Threshold:
    """The largest allowed share of failures, and the largest allowed p95 in seconds."""

    error_ratio: float
    p95: float


@dataclass(frozen=True)
class Finding:
    """One route's result and its threshold."""

    key: Key
    series: Series
    threshold: Threshold

    @property
    def error_ratio(self) -> float:
        return self.series.failed / self.series.requests if self.series.requests else 0.0

    @property
    def p95(self) -> float:
        return self.series.quantile(0.95)

    @property
    def missed(self) -> list[str]:
        missed = []
        if self.error_ratio > self.threshold.error_ratio:
            missed.append(f"errors {self.error_ratio:.2%} > {self.threshold.error_ratio:.2%}")
        if self.p95 > self.threshold.p95:
            missed.append(f"p95 {self.p95:g} s > {self.threshold.p95:g} s")
        return missed


def load_thresholds(path: Path = THRESHOLDS) -> dict[str, Threshold]:
    """Read the thresholds.

    Raises:
        ValueError: the file is missing, incomplete or has an unusable value.
    """
    try:
        tables = tomllib.loads(path.read_text())
        thresholds = {
            name: Threshold(float(table["error_ratio"]), float(table["p95"])) for name, table in tables.items()
        }
        thresholds["default"]  # must be there
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error!r}") from None
    for name, threshold in thresholds.items():
        if threshold.p95 not in BUCKETS:
            raise ValueError(f"{path.name}: [{name}] p95 = {threshold.p95:g}: choose one of {BUCKETS}")
    return thresholds


def threshold_of(name: str, thresholds: Mapping[str, Threshold]) -> Threshold:
    """The threshold of a route, or the default."""
    return thresholds.get(name, thresholds["default"])


def judge(series: Mapping[Key, Series], thresholds: Mapping[str, Threshold]) -> list[Finding]:
    """Compare each route with its threshold; sorted by route."""
    return [
        Finding(key, one, threshold_of(key[1], thresholds))
        for key, one in sorted(series.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def table(findings: list[Finding]) -> str:
    """The results as a table for a terminal. p50 and p95 are upper bounds of their histogram bucket."""
    rows = [f"{'route':<28}{'requests':>10}{'failed':>9}{'errors':>9}{'mean':>10}{'p50 <=':>9}{'p95 <=':>9}  verdict"]
    for one in findings:
        mean = one.series.seconds / one.series.requests if one.series.requests else 0.0
        rows.append(
            f"{' '.join(one.key):<28}{one.series.requests:>10}{one.series.failed:>9}{one.error_ratio:>9.2%}"
            f"{mean:>8.3f} s{one.series.quantile(0.5):>7g} s{one.p95:>7g} s  {'; '.join(one.missed) or 'met'}"
        )
    return "\n".join(rows)
