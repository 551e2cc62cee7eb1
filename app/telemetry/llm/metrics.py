# SPDX-License-Identifier: Apache-2.0
"""The metrics of LLM calls and the values of their labels.

Every metric has the labels `provider` and `model`. The series of a model are made by the first call of it, or at 0 by
`configure`. Seconds are seconds, tokens are tokens, cost is in US dollars.
"""

from __future__ import annotations

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
USAGE_MISSING_REASONS = ("not_requested", "not_returned", "cancelled", "error")
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
    buckets=[0.08 * 2**n for n in range(13)],
)
TIME_TO_FIRST_TOKEN = Histogram(
    "llm_time_to_first_token_seconds",
    "Time from the request to the first token of a streamed answer",
    PAIR,
    buckets=[0.02 * 2**n for n in range(12)],
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "llm_time_per_output_token_seconds",
    "Mean time between the tokens of a streamed answer after the first",
    PAIR,
    buckets=[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5],
)
REQUEST_TOKENS = Histogram(
    "llm_request_tokens",
    "Tokens per call",
    (*PAIR, "type"),
    buckets=[16 * 4**n for n in range(9)],
)
PROMPT_LENGTH = Histogram(
    "llm_prompt_length_characters",
    "Length of the user's prompt",
    PAIR,
    buckets=[16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576],
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
    "What the provider's rate limit leaves, as of its last response",
    (*PAIR, "resource"),
    multiprocess_mode="livemostrecent",
)
