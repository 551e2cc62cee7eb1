"""Exact counts of what a load test did: every request, none rounded, merged from all workers.

Locust's own statistics round response times; a histogram made from them would not be exact. So each process counts
for itself, workers send what they counted since their last report, and the master sums it.
"""

import copy
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

# Seconds: the bounds of the service's http_request_duration_seconds, so that the two can be compared, and more for
# thresholds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0)

# Request types of their own: events inside a request, not requests.
FIRST_TOKEN = "FIRST TOKEN"  # noqa: S105
ABANDONED = "ABANDONED"  # the client closed the stream before its end

Key = tuple[str, str]  # method, name


@dataclass
class Series:
    """What was counted for one kind of request: a histogram of seconds, that of failures in it, failures by kind."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    failed_counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    failed_seconds: float = 0.0

    @property
    def requests(self) -> int:
        return sum(self.counts)

    @property
    def failed(self) -> int:
        return self.failures.total()

    def add(self, other: "Series") -> None:
        self.counts = _sum(self.counts, other.counts)
        self.seconds += other.seconds
        self.failures.update(other.failures)
        self.failed_counts = _sum(self.failed_counts, other.failed_counts)
        self.failed_seconds += other.failed_seconds

    def since(self, earlier: "Series | None") -> "Series":
        """What was counted after `earlier`, a previous state of the same series."""
        if earlier is None:
            return self
        return Series(
            _difference(self.counts, earlier.counts),
            self.seconds - earlier.seconds,
            self.failures - earlier.failures,
            _difference(self.failed_counts, earlier.failed_counts),
            self.failed_seconds - earlier.failed_seconds,
        )

    def copy(self) -> "Series":
        return copy.deepcopy(self)

    def quantile(self, share: float) -> float:
        """The quantile `share` of the response times in seconds, rounded up to the bound of its bucket.

        Beyond the last bound it is infinite, so the verdict is never too favourable.
        """
        wanted = share * self.requests
        seen = 0
        for bound, count in zip((*BUCKETS, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= wanted and seen:
                return bound
        return 0.0


class Record:
    """Counts requests by method and name; also a prometheus_client collector."""

    def __init__(self) -> None:
        self.series: dict[Key, Series] = {}
        self.users = 0
        self.workers = 0
        self.running = False
        self.scrapes = 0

    def count(self, method: str, name: str, seconds: float, exception: BaseException | None) -> None:
        """Count one request that ended after `seconds`; `exception` if it failed."""
        series = self.series.setdefault((method, name), Series())
        bucket = bisect_left(BUCKETS, seconds)
        series.counts[bucket] += 1
        series.seconds += seconds
        if exception is not None:
            series.failures[failure_kind(exception)] += 1
            series.failed_counts[bucket] += 1
            series.failed_seconds += seconds

    def drain(self) -> list[Any]:
        """Return everything counted so far as plain data for the master, and reset."""
        drained, self.series = self.series, {}
        return [
            [*key, one.counts, one.seconds, dict(one.failures), one.failed_counts, one.failed_seconds]
            for key, one in drained.items()
        ]

    def merge(self, data: Iterable[Any]) -> None:
        """Add what a worker drained."""
        for method, name, counts, seconds, failures, failed_counts, failed_seconds in data:
            series = self.series.setdefault((method, name), Series())
            series.add(Series(list(counts), seconds, Counter(failures), list(failed_counts), failed_seconds))

    def snapshot(self) -> dict[Key, Series]:
        return {key: series.copy() for key, series in self.series.items()}

    def requests(self) -> dict[Key, Series]:
        """The series that are requests (not events inside one)."""
        return {key: series for key, series in self.series.items() if key[0] not in (FIRST_TOKEN, ABANDONED)}

    def collect(self) -> Iterator[Metric]:
        self.scrapes += 1
        yield GaugeMetricFamily("locust_users", "Users that the load test simulates now.", self.users)
        yield GaugeMetricFamily("locust_workers", "Worker processes that report to the master.", self.workers)
        yield GaugeMetricFamily("locust_test_running", "1 while a load test runs, else 0.", float(self.running))
        labels = ["method", "name"]
        requests = CounterMetricFamily(
            "locust_requests", "Requests that completed, including failed ones.", labels=labels
        )
        failures = CounterMetricFamily(
            "locust_failures", "Requests that failed, by kind.", labels=[*labels, "error_class"]
        )
        times = HistogramMetricFamily(
            "locust_response_time_seconds",
            "Response time to the last byte, measured by the client.",
            labels=[*labels, "outcome"],
        )
        first = HistogramMetricFamily(
            "locust_time_to_first_token_seconds", "From the request to the first part of a stream.", labels=["name"]
        )
        abandoned = CounterMetricFamily(
            "locust_streams_abandoned", "Streams that the client closed before their end.", labels=["name"]
        )
        for (method, name), series in self.series.items():
            if method == ABANDONED:
                abandoned.add_metric([name], series.requests)
                continue
            if method == FIRST_TOKEN:
                first.add_metric([name], _buckets(series.counts), series.seconds)
                continue
            requests.add_metric([method, name], series.requests)
            succeeded = _difference(series.counts, series.failed_counts), series.seconds - series.failed_seconds
            for outcome, (counts, seconds) in (
                ("success", succeeded),
                ("failure", (series.failed_counts, series.failed_seconds)),
            ):
                times.add_metric([method, name, outcome], _buckets(counts), seconds)
            for kind, count in series.failures.items():
                failures.add_metric([method, name, kind], count)
        yield from (requests, failures, times, first, abandoned)


def _sum(mine: list[int], theirs: list[int]) -> list[int]:
    return [a + b for a, b in zip(mine, theirs, strict=True)]


def _difference(now: list[int], then: list[int]) -> list[int]:
    return [a - b for a, b in zip(now, then, strict=True)]


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def failure_kind(exception: BaseException) -> str:
    """A bounded name for a failure: `HTTP 503`, the exception's class, or `check` for a failed response check."""
    code = getattr(exception, "code", None)
    if isinstance(code, int) and 100 <= code <= 599:
        return f"HTTP {code}"
    name = type(exception).__name__
    return "check" if name == "CatchResponseError" else name
