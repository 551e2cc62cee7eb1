# SPDX-License-Identifier: Apache-2.0
"""The metrics of LLM calls and the values of their labels.

Every metric has the labels `provider` and `model`. The series of a model are created by its first call, or at 0 by
`configure`. Times are in seconds, cost is in US dollars, prompt lengths are in characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

OUTCOMES = ("success", "error", "cancelled", "incomplete")
OPERATIONS = ("chat", "text_completion", "embeddings")
ERROR_TYPES = (
    "rate_limit",
    "timeout",
    "connection",
    "auth",
    "bad_request",
    "context_length",
    "content_filter",
    "overloaded",
    "server",
    "other",
)
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "other")
USAGE_MISSING_REASONS = ("not_requested", "not_returned", "unreadable", "cancelled", "error")
TOKEN_DETAILS = ("input_cache_read", "input_cache_write", "output_reasoning")
OTHER = "other"

PAIR = ("provider", "model")
TOKENS = Counter(
    "llm_tokens",
    "Tokens used; input includes cached tokens, output includes reasoning",
    (*PAIR, "type"),
)
TOKEN_DETAIL = Counter(
    "llm_token_details",
    "Subsets of llm_tokens_total, never to be added to it: cached input, hidden reasoning",
    (*PAIR, "detail"),
)
REQUESTS = Counter("llm_requests", "LLM calls that ended", (*PAIR, "operation", "outcome"))
DURATION = Histogram(
    "llm_request_duration_seconds",
    "Response time of the model: from the request to the last byte of the answer, retries included",
    (*PAIR, "operation", "outcome"),
    buckets=[0.16 * 2**n for n in range(11)],
)
TIME_TO_FIRST_TOKEN = Histogram(
    "llm_time_to_first_token_seconds",
    "Time from the request to the first token of a streamed answer",
    PAIR,
    buckets=[0.08 * 2**n for n in range(9)],
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "llm_time_per_output_token_seconds",
    "Mean time between the tokens of a streamed answer after the first",
    PAIR,
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5],
)
REQUEST_TOKENS = Histogram(
    "llm_request_tokens",
    "Tokens per call",
    (*PAIR, "type"),
    buckets=[64 * 4**n for n in range(7)],
)
PROMPT_LENGTH = Histogram(
    "llm_prompt_length_characters",
    "Length of the user's prompt",
    PAIR,
    buckets=[64 * 4**n for n in range(7)],
)
ERRORS = Counter("llm_errors", "LLM calls that failed, by kind", (*PAIR, "error_type"))
RETRIES = Counter("llm_retries", "Requests repeated after a failure, by the kind of that failure", (*PAIR, "reason"))
IN_PROGRESS = Gauge("llm_requests_in_progress", "LLM calls under way", PAIR, multiprocess_mode="livesum")
FINISHES = Counter("llm_finish_reasons", "Why the model stopped", (*PAIR, "reason"))
USAGE_MISSING = Counter(
    "llm_usage_missing",
    "Calls whose final token usage is unknown, so that llm_tokens_total lacks them in whole or in part",
    (*PAIR, "reason"),
)
COST = Counter("llm_cost_usd", "Cost of the tokens in US dollars, by the price table", PAIR)
UNPRICED = Counter("llm_unpriced_requests", "Calls with known tokens of a model without a price", PAIR)
RATE_LIMIT_REMAINING = Gauge(
    "llm_rate_limit_remaining",
    "Remaining part of the provider's rate limit, as of its last response",
    (*PAIR, "resource"),
    multiprocess_mode="livemostrecent",
)


class Series:
    """The series of one provider and model, cached: `labels()` takes a microsecond, and a call needs a dozen."""

    def __init__(self, pair: tuple[str, str]) -> None:
        self.pair = pair
        self._of_outcome: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._of_value: dict[tuple[Any, str], Any] = {}

    def of(self, metric: Counter | Gauge | Histogram, value: str) -> Any:
        """The series of a metric with a third label."""
        found = self._of_value.get((metric, value))
        if found is None:
            found = self._of_value[metric, value] = metric.labels(*self.pair, value)
        return found

    def ended(self, operation: str, outcome: str) -> tuple[Counter, Histogram]:
        """The number and the durations of the calls with this outcome."""
        found = self._of_outcome.get((operation, outcome))
        if found is None:
            labels = (*self.pair, operation, outcome)
            found = self._of_outcome[operation, outcome] = (REQUESTS.labels(*labels), DURATION.labels(*labels))
        return found

    @cached_property
    def in_progress(self) -> Gauge:
        return IN_PROGRESS.labels(*self.pair)

    @cached_property
    def prompt_length(self) -> Histogram:
        return PROMPT_LENGTH.labels(*self.pair)

    @cached_property
    def time_to_first_token(self) -> Histogram:
        return TIME_TO_FIRST_TOKEN.labels(*self.pair)

    @cached_property
    def time_per_output_token(self) -> Histogram:
        return TIME_PER_OUTPUT_TOKEN.labels(*self.pair)

    @cached_property
    def tokens(self) -> tuple[Counter, Counter, Histogram, Histogram]:
        """Input and output tokens: total input, total output, input per call, output per call."""
        given, made = (*self.pair, "input"), (*self.pair, "output")
        return TOKENS.labels(*given), TOKENS.labels(*made), REQUEST_TOKENS.labels(*given), REQUEST_TOKENS.labels(*made)

    @cached_property
    def cost(self) -> Counter:
        return COST.labels(*self.pair)

    @cached_property
    def unpriced(self) -> Counter:
        return UNPRICED.labels(*self.pair)

    def start_at_zero(self, operations: Iterable[str]) -> None:
        """Create all series, so that dashboards show 0 and `increase()` sees the first error."""
        _ = self.in_progress, self.prompt_length, self.time_to_first_token, self.time_per_output_token, self.tokens
        _ = self.cost, self.unpriced
        for metric, values in (
            (TOKEN_DETAIL, TOKEN_DETAILS),
            (ERRORS, ERROR_TYPES),
            (RETRIES, ERROR_TYPES),
            (FINISHES, FINISH_REASONS),
            (USAGE_MISSING, USAGE_MISSING_REASONS),
        ):
            for value in values:
                self.of(metric, value)
        for operation in operations:
            for outcome in OUTCOMES:
                self.ended(operation, outcome)


_series: dict[tuple[str, str], Series] = {}


def series_of(pair: tuple[str, str]) -> Series:
    """The series of a pair of labels; there are as many as `configure` allows."""
    found = _series.get(pair)
    if found is None:
        found = _series[pair] = Series(pair)
    return found
