"""Prometheus metrics of LLM calls, for any provider, whole or streamed.

Depends on prometheus_client alone and may be copied alone: responses of the OpenAI and Anthropic SDKs (and of every
server that speaks their protocols) are read by shape, as objects or as dicts, without importing anything of theirs.

    configure(models={"openai": ["gpt-5-mini"]}, prices="prices.toml")

    with track_call("openai", "gpt-5-mini", prompt=question) as call:
        response = call.record(client.chat.completions.create(model="gpt-5-mini", messages=messages))

    async with track_call("openai", "gpt-5-mini", prompt=question) as call:
        stream = await client.chat.completions.create(model="gpt-5-mini", messages=messages, stream=True,
                                                      stream_options={"include_usage": True})
        async for chunk in call.stream(stream):
            ...

    client = AsyncOpenAI(http_client=watch_http(DefaultAsyncHttpxClient()))  # also counts the SDK's silent retries

Labels: `provider` and `model` are those given to `configure`, everything else is `other`. Nothing of a prompt, an
answer, a key or a user becomes a label or a log line. Times are in seconds of the monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import logging
import math
import mmap
import os
import threading
import time
import tomllib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

try:
    from . import exposition
except ImportError:  # copied alone: one process, numbers in memory
    exposition = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

Response = TypeVar("Response")
Item = TypeVar("Item")
Client = TypeVar("Client")

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

_PAIR = ("provider", "model")
TOKENS = Counter(
    "llm_tokens",
    "Tokens used; input includes cached tokens, output includes reasoning",
    (*_PAIR, "type"),
)
TOKEN_DETAIL = Counter(
    "llm_token_details",
    "Subsets of llm_tokens_total, never to be added to it: cached input, hidden reasoning",
    (*_PAIR, "detail"),
)
REQUESTS = Counter("llm_requests", "LLM calls that ended", (*_PAIR, "operation", "outcome"))
DURATION = Histogram(
    "llm_request_duration_seconds",
    "Response time of the model: from the request to the last byte of the answer, retries included",
    (*_PAIR, "operation", "outcome"),
    buckets=[0.08 * 2**n for n in range(13)],
)
TIME_TO_FIRST_TOKEN = Histogram(
    "llm_time_to_first_token_seconds",
    "Time from the request to the first token of a streamed answer",
    _PAIR,
    buckets=[0.02 * 2**n for n in range(12)],
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "llm_time_per_output_token_seconds",
    "Mean time between the tokens of a streamed answer after the first",
    _PAIR,
    buckets=[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5],
)
REQUEST_TOKENS = Histogram(
    "llm_request_tokens",
    "Tokens per call",
    (*_PAIR, "type"),
    buckets=[16 * 4**n for n in range(9)],
)
PROMPT_LENGTH = Histogram(
    "llm_prompt_length_characters",
    "Length of the user's prompt",
    _PAIR,
    buckets=[16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576],
)
ERRORS = Counter("llm_errors", "LLM calls that failed, by kind", (*_PAIR, "error_type"))
RETRIES = Counter("llm_retries", "Requests repeated after a failure, by the kind of that failure", (*_PAIR, "reason"))
IN_PROGRESS = Gauge("llm_requests_in_progress", "LLM calls under way", _PAIR, multiprocess_mode="livesum")
FINISHES = Counter("llm_finish_reasons", "Why the model stopped", (*_PAIR, "reason"))
USAGE_MISSING = Counter(
    "llm_usage_missing",
    "Calls whose final token usage is unknown, so that llm_tokens_total lacks them in whole or in part",
    (*_PAIR, "reason"),
)
COST = Counter("llm_cost_usd", "Cost of the tokens in US dollars, by the price table", _PAIR)
UNPRICED = Counter("llm_unpriced_requests", "Calls with known tokens of a model without a price", _PAIR)
RATE_LIMIT_REMAINING = Gauge(
    "llm_rate_limit_remaining",
    "What the provider's rate limit leaves, as of its last response",
    (*_PAIR, "resource"),
    multiprocess_mode="livemostrecent",
)


# Configuration: which labels exist, and what a token costs


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. What is None costs as much as its more general neighbour."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None

    def cost(self, usage: Usage) -> float:
        """US dollars for `usage`: each token is paid once, at the price of its own kind."""
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


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. The four parts are subsets: of the input the caches, of the output the reasoning."""

    input_tokens: int
    output_tokens: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0  # of cache_write, what is kept for an hour, at a price of its own
    reasoning: int = 0


_providers: frozenset[str] = frozenset()
_models: frozenset[tuple[str, str]] = frozenset()
_prices: Mapping[tuple[str, str], Price] = {}


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
    global _providers, _models, _prices
    for names in (*models.values(), operations):
        if isinstance(names, str):
            raise TypeError(f"a list of names, please: [{names!r}]")
    table = read_prices(prices) if isinstance(prices, str | Path) else dict(prices or {})
    listed = [(provider, model) for provider, names in models.items() for model in names]
    _models = frozenset(listed) | frozenset(table)
    _providers = frozenset(provider for provider, _ in _models)
    _prices = table
    for pair in listed:
        _start_at_zero(pair, operations)


def read_prices(path: str | Path) -> dict[tuple[str, str], Price]:
    """Read a price table: TOML, one table per `[provider."model"]`, US dollars per million tokens.

    Raises ValueError, saying which entry and why, if the file is missing, is not TOML or has a bad price.
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
                raise ValueError(f"{where}: a price is a number of US dollars per million tokens, 0 or more")
            table[provider, model] = price
    return table


def _start_at_zero(pair: tuple[str, str], operations: Iterable[str]) -> None:
    for metric in (TIME_TO_FIRST_TOKEN, TIME_PER_OUTPUT_TOKEN, PROMPT_LENGTH, IN_PROGRESS, COST, UNPRICED):
        metric.labels(*pair)
    for kind in ("input", "output"):
        TOKENS.labels(*pair, kind)
        REQUEST_TOKENS.labels(*pair, kind)
    for metric, values in (
        (TOKEN_DETAIL, TOKEN_DETAILS),
        (ERRORS, ERROR_TYPES),
        (RETRIES, ERROR_TYPES),
        (FINISHES, FINISH_REASONS),
        (USAGE_MISSING, USAGE_MISSING_REASONS),
    ):
        for value in values:
            metric.labels(*pair, value)
    for operation in operations:
        for outcome in OUTCOMES:
            REQUESTS.labels(*pair, operation, outcome)
            DURATION.labels(*pair, operation, outcome)
    _peaks.touch(pair)


def _pair(provider: str, model: str) -> tuple[str, str]:
    if (provider, model) in _models:
        return provider, model
    return (provider if provider in _providers else OTHER), OTHER


# Counting


def track_tokens(
    input_tokens: int,
    output_tokens: int,
    provider: str,
    model: str,
    *,
    cache_read: int = 0,
    cache_write: int = 0,
    reasoning: int = 0,
) -> None:
    """Count the tokens of one call, and their cost. For code that cannot use `track_call`, which counts them itself.

    `input_tokens` includes the cached ones, `output_tokens` the reasoning. Raises ValueError for negative numbers and
    for parts that are larger than the whole.
    """
    usage = Usage(input_tokens, output_tokens, cache_read, cache_write, 0, reasoning)
    if min(input_tokens, output_tokens, cache_read, cache_write, reasoning) < 0:
        raise ValueError("numbers of tokens are 0 or more")
    if cache_read + cache_write > input_tokens or reasoning > output_tokens:
        raise ValueError("cached tokens are part of input_tokens, reasoning is part of output_tokens")
    _count(usage, provider, model)


def _count(usage: Usage, provider: str, model: str) -> None:
    pair = _pair(provider, model)
    TOKENS.labels(*pair, "input").inc(usage.input_tokens)
    TOKENS.labels(*pair, "output").inc(usage.output_tokens)
    REQUEST_TOKENS.labels(*pair, "input").observe(usage.input_tokens)
    REQUEST_TOKENS.labels(*pair, "output").observe(usage.output_tokens)
    for detail, tokens in zip(TOKEN_DETAILS, (usage.cache_read, usage.cache_write, usage.reasoning), strict=True):
        if tokens:
            TOKEN_DETAIL.labels(*pair, detail).inc(tokens)
    price = _prices.get((provider, model))
    if price is None:
        UNPRICED.labels(*pair).inc()
    else:
        COST.labels(*pair).inc(price.cost(usage))


_current: ContextVar[Call | None] = ContextVar("llm_call", default=None)


def track_call(provider: str, model: str, *, operation: str = "chat", prompt: str | int | None = None) -> Call:
    """Measure one LLM call: a context manager, `with` or `async with`, around the request and its whole answer.

    `model` is the model as requested. `prompt` is what the user wrote, or its length in characters: it is measured,
    never kept. Inside, give the response to `call.record(...)` or the stream to `call.stream(...)`.

    Raises TypeError for another `prompt`, such as a list of messages.
    """
    if prompt is not None and not isinstance(prompt, str | int):
        raise TypeError(f"prompt is the user's text or its length, not a {type(prompt).__name__}")
    return Call(provider, model, operation, len(prompt) if isinstance(prompt, str) else prompt)


class Call:
    """One LLM call under way. `usage`, `finish_reasons` and `outcome` tell what is known of it so far.

    The outcome is
    - success: the answer came whole;
    - error: the provider, or the way to it, failed (llm_errors_total says how);
    - cancelled: the caller stopped waiting or reading before the end;
    - incomplete: the stream ended without a finish reason: cut off on the way, though nothing raised.
    """

    __slots__ = (
        "_attempt_failure",
        "_ended",
        "_exhausted",
        "_failure",
        "_first_token",
        "_generator",
        "_last_chunk",
        "_outer",
        "_pair",
        "_prompt_length",
        "_reasoning_streamed",
        "_recorded",
        "_source",
        "_started",
        "_usage_fields",
        "finish_reasons",
        "model",
        "operation",
        "outcome",
        "provider",
        "usage",
    )

    def __init__(self, provider: str, model: str, operation: str, prompt_length: int | None) -> None:
        self.provider = provider
        self.model = model
        self.operation = operation if operation in OPERATIONS else OTHER
        self.outcome: str | None = None
        self.usage: Usage | None = None
        self.finish_reasons: list[str] = []
        self._pair = _pair(provider, model)
        self._prompt_length = prompt_length
        self._started = 0.0
        self._ended: float | None = None
        self._first_token: float | None = None
        self._reasoning_streamed = False
        self._recorded = False
        self._source: Any = None
        self._generator: Any = None
        self._exhausted = False
        self._last_chunk: Any = None
        self._usage_fields: dict[str, Any] = {}
        self._failure: BaseException | str | None = None
        self._attempt_failure: str | None = None
        self._outer: Call | None = None

    # The context manager

    def __enter__(self) -> Self:
        if self._started:
            raise RuntimeError("this call was measured already: each one needs a track_call() of its own")
        IN_PROGRESS.labels(*self._pair).inc()
        if self._prompt_length is not None:
            PROMPT_LENGTH.labels(*self._pair).observe(self._prompt_length)
            _peaks.observe(self._pair, self._prompt_length)
        self._outer = _current.get()
        _current.set(self)
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(error)
        if self._source is not None and not self._exhausted:
            self._generator.close()
            with contextlib.suppress(Exception):  # a connection that is broken already
                self._source.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(error)
        if self._source is not None and not self._exhausted:
            with contextlib.suppress(Exception):  # a connection that is broken already
                await self._generator.aclose()
                closing = (getattr(self._source, "aclose", None) or self._source.close)()
                if inspect.isawaitable(closing):
                    await closing

    # What the caller tells

    def record(self, response: Response) -> Response:
        """Read usage and finish reasons from a whole response, and return it."""
        self._ended = time.perf_counter()
        self._recorded = True
        try:
            _read_whole(self, response)
        except Exception as error:
            _unreadable(error)
        return response

    def rate_limit(self, resource: str, remaining: int) -> None:
        """Tell how many `requests` or `tokens` the provider's rate limit leaves. `watch_http` does it from headers."""
        RATE_LIMIT_REMAINING.labels(*self._pair, resource).set(remaining)

    @overload
    def stream(self, source: AsyncIterable[Item]) -> AsyncIterator[Item]: ...
    @overload
    def stream(self, source: Iterable[Item]) -> Iterator[Item]: ...
    def stream(self, source: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item] | Iterator[Item]:
        """Pass the chunks of a provider's stream through, recording what they tell and how the stream ends.

        When the `with` block is left early, the provider's stream is closed (an asynchronous one by `async with`).
        """
        self._source = source
        self._generator = (
            self._pass_async(source) if hasattr(source, "__aiter__") else self._pass_sync(source)  # type: ignore[arg-type]
        )
        return self._generator  # type: ignore[no-any-return]

    def _pass_sync(self, source: Iterable[Item]) -> Iterator[Item]:
        try:
            read = None
            for chunk in source:
                try:
                    if read is None:
                        read = _reader(chunk)
                    read(self, chunk)
                except Exception as error:
                    read = _unreadable(error)
                yield chunk
        except BaseException as error:
            self._broken(error)
            raise
        self._complete()

    async def _pass_async(self, source: AsyncIterable[Item]) -> AsyncIterator[Item]:
        try:
            read = None
            async for chunk in source:
                try:
                    if read is None:
                        read = _reader(chunk)
                    read(self, chunk)
                except Exception as error:
                    read = _unreadable(error)
                yield chunk
        except BaseException as error:
            self._broken(error)
            raise
        self._complete()

    def _broken(self, error: BaseException) -> None:
        if self._ended is None:
            self._ended = time.perf_counter()
            self._failure = error

    def _complete(self) -> None:
        self._ended = time.perf_counter()
        self._exhausted = True

    # How it ended

    def _finish(self, error: BaseException | None) -> None:
        if self.outcome is not None:
            return
        self.outcome = "error"  # until more is known, and once only
        if _current.get() is self:
            _current.set(self._outer)
        self._outer = None
        IN_PROGRESS.labels(*self._pair).dec()
        try:
            self._count_end(error)
        except Exception as fault:  # such as an error whose attributes raise
            logger.warning("LLM call not measured: %s", type(fault).__name__)
        self._last_chunk = None

    def _count_end(self, error: BaseException | None) -> None:
        ended = time.perf_counter() if self._ended is None else self._ended
        self.outcome, failure = self._judge(error)
        if self._usage_fields:
            self.usage = read_usage(self._usage_fields)

        REQUESTS.labels(*self._pair, self.operation, self.outcome).inc()
        DURATION.labels(*self._pair, self.operation, self.outcome).observe(ended - self._started)
        if failure is not None:
            ERRORS.labels(*self._pair, failure).inc()
        for reason in self.finish_reasons:
            FINISHES.labels(*self._pair, reason).inc()
        if self._first_token is not None:
            TIME_TO_FIRST_TOKEN.labels(*self._pair).observe(self._first_token - self._started)
        if self.usage is not None:
            _count(self.usage, self.provider, self.model)
            if self._first_token is not None and self.outcome == "success":
                # Reasoning that was not streamed took place before the first token, so it does not count here.
                after = self.usage.output_tokens - (0 if self._reasoning_streamed else self.usage.reasoning) - 1
                if after > 0:
                    TIME_PER_OUTPUT_TOKEN.labels(*self._pair).observe((ended - self._first_token) / after)
        missing = self._usage_missing(error)
        if missing is not None:
            USAGE_MISSING.labels(*self._pair, missing).inc()

    def _judge(self, error: BaseException | None) -> tuple[str, str | None]:
        """The outcome, and for an error its type."""
        if isinstance(self._failure, str):  # the provider said so in the response itself
            return "error", self._failure
        cause = error if self._failure is None else self._failure
        if self._source is None:
            if self._recorded or cause is None:
                return "success", None
        elif self._exhausted:
            return ("success" if self.finish_reasons else "incomplete"), None
        elif self.finish_reasons and (cause is None or _is_cancellation(cause)):
            return "success", None  # the answer is whole; only the usage after it was not read
        elif self._failure is None:
            return "cancelled", None  # the provider did nothing wrong: the caller stopped reading
        if _is_cancellation(cause):
            return "cancelled", None
        return "error", error_type(cause)

    def _usage_missing(self, error: BaseException | None) -> str | None:
        """Why the final usage is not known, if it is not."""
        if self.outcome == "error":
            cause = error if self._failure is None else self._failure
            # A call that was refused used no tokens; one that broke off may have used some that nobody reports.
            refused = self._last_chunk is None and _status(cause) is not None
            return None if refused or (isinstance(cause, str) and self.usage is not None) else "error"
        if self.outcome == "success" and self.usage is not None:
            return None
        if self.outcome == "cancelled" or (self._source is not None and not self._exhausted):
            return "cancelled"
        if self._source is not None and not _may_carry_usage(self._last_chunk):
            return "not_requested"
        return "not_returned"


def _is_cancellation(error: BaseException | str | None) -> bool:
    return isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit)


# Reading responses, by shape

_MOST_TOKENS = 10**12  # of a call; anything beyond is nonsense


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _number(thing: Any, name: str) -> int:
    value = _get(thing, name)
    return value if isinstance(value, int) and 0 < value <= _MOST_TOKENS else 0


def _consistent(usage: Usage) -> Usage:
    """No part larger than its whole, whatever the server says: a cost below 0 cannot be counted."""
    cache_read = min(usage.cache_read, usage.input_tokens)
    cache_write = min(usage.cache_write, usage.input_tokens - cache_read)
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        cache_read,
        cache_write,
        min(usage.cache_write_1h, cache_write),
        min(usage.reasoning, usage.output_tokens),
    )


def read_usage(usage: Any) -> Usage | None:
    """The tokens in a usage object or dict of OpenAI (chat, completions, embeddings, responses) or Anthropic.

    OpenAI's input includes what came from the cache; Anthropic's does not, so it is added here. None if `usage` is
    neither.
    """
    found = _read_usage(usage)
    return None if found is None else _consistent(found)


def _read_usage(usage: Any) -> Usage | None:
    if _get(usage, "prompt_tokens") is not None:
        details = _get(usage, "prompt_tokens_details")
        return Usage(
            _number(usage, "prompt_tokens"),
            _number(usage, "completion_tokens"),
            cache_read=_number(details, "cached_tokens"),
            cache_write=_number(details, "cache_write_tokens"),
            reasoning=_number(_get(usage, "completion_tokens_details"), "reasoning_tokens"),
        )
    if _get(usage, "input_tokens") is None:
        return None
    output_details = _get(usage, "output_tokens_details")
    details = _get(usage, "input_tokens_details")
    if details is not None:
        return Usage(
            _number(usage, "input_tokens"),
            _number(usage, "output_tokens"),
            cache_read=_number(details, "cached_tokens"),
            cache_write=_number(details, "cache_write_tokens"),
            reasoning=_number(output_details, "reasoning_tokens"),
        )
    cache_read = _number(usage, "cache_read_input_tokens")
    cache_write = _number(usage, "cache_creation_input_tokens")
    return Usage(
        _number(usage, "input_tokens") + cache_read + cache_write,
        _number(usage, "output_tokens"),
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=_number(_get(usage, "cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning=_number(output_details, "thinking_tokens"),
    )


_FINISH_REASON = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def _read_whole(call: Call, response: Any) -> None:
    usage = _get(response, "usage")
    if usage is not None:
        call.usage = read_usage(usage)
    for choice in _get(response, "choices") or ():
        _note_finish(call, _get(choice, "finish_reason"))
    _note_finish(call, _get(response, "stop_reason"))
    if _get(response, "object") == "response":
        _read_response_object(call, response)


def _note_finish(call: Call, reason: Any) -> None:
    if reason is not None:
        call.finish_reasons.append(_FINISH_REASON.get(reason, OTHER))


def _reader(chunk: Any) -> Callable[[Call, Any], None]:
    return _read_choices if _get(chunk, "choices") is not None else _read_event


def _unreadable(error: Exception) -> Callable[[Call, Any], None]:
    """What no reader understands goes unmeasured, and to the caller as it is: telemetry must not break a call."""
    logger.warning("LLM response of an unknown shape, not measured: %s", type(error).__name__)
    return lambda call, chunk: None


def _read_choices(call: Call, chunk: Any) -> None:
    """A chunk of OpenAI's chat completions or completions. Runs per chunk: keep it short."""
    call._last_chunk = chunk
    if isinstance(chunk, dict):
        choices, usage = chunk.get("choices"), chunk.get("usage")
    else:
        choices, usage = getattr(chunk, "choices", None), getattr(chunk, "usage", None)
    if choices:
        for choice in choices:
            reason = choice.get("finish_reason") if isinstance(choice, dict) else choice.finish_reason
            if reason is not None:
                _note_finish(call, reason)
        if call._first_token is None:
            _look_for_first_token(call, choices)
    else:
        _stream_error(call, chunk)
    if usage is not None:
        call.usage = read_usage(usage)


def _look_for_first_token(call: Call, choices: Any) -> None:
    """The first chunk often carries the role alone: the first token is the first chunk that carries some output."""
    for choice in choices:
        delta = _get(choice, "delta")
        # Hidden reasoning that servers like vLLM do stream
        reasoning = _get(delta, "reasoning_content") or _get(delta, "reasoning")
        if (
            reasoning
            or _get(delta, "content")
            or _get(delta, "tool_calls")
            or _get(delta, "refusal")
            or _get(choice, "text")
        ):
            call._first_token = time.perf_counter()
            call._reasoning_streamed = bool(reasoning)
            return


def _read_event(call: Call, event: Any) -> None:
    """An event of Anthropic's messages, OpenAI's responses or an SDK's stream helper. Runs per chunk."""
    call._last_chunk = event
    handler = _EVENTS.get(event.get("type") if isinstance(event, dict) else getattr(event, "type", None))
    if handler is not None:
        handler(call, event)


def _content(call: Call, event: Any) -> None:
    if call._first_token is None:
        call._first_token = time.perf_counter()
        call._reasoning_streamed = _get(_get(event, "delta"), "type") == "thinking_delta"


def _message_start(call: Call, event: Any) -> None:
    _merge_usage(call, _get(_get(event, "message"), "usage"))


def _message_delta(call: Call, event: Any) -> None:
    _merge_usage(call, _get(event, "usage"))
    _note_finish(call, _get(_get(event, "delta"), "stop_reason"))


def _merge_usage(call: Call, usage: Any) -> None:
    """Anthropic tells the usage in parts: what a later event leaves out stands as an earlier one said."""
    for name in (
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "output_tokens_details",
    ):
        value = _get(usage, name)
        if value is not None:
            call._usage_fields[name] = value


def _response_end(call: Call, event: Any) -> None:
    _read_response_object(call, _get(event, "response"))


def _read_response_object(call: Call, response: Any) -> None:
    """The end of a call of OpenAI's responses API."""
    usage = _get(response, "usage")
    if usage is not None:
        call.usage = read_usage(usage)
    status = _get(response, "status")
    if status == "failed":
        call._failure = _ERROR_CODES.get(_get(_get(response, "error"), "code"), "server")
    elif status == "incomplete":
        _note_finish(call, _get(_get(response, "incomplete_details"), "reason") or OTHER)
    elif status == "completed":
        _note_finish(call, status)


def _stream_error(call: Call, chunk: Any) -> None:
    """An error in the place of a chunk: OpenAI's {"error": {...}} and {"type": "error", "code": ...}, Anthropic's."""
    error = _get(chunk, "error")
    if error is None and _get(chunk, "type") != "error":
        return
    call._failure = "server"
    for code in (_get(chunk, "code"), _get(error, "code"), _get(error, "type")):
        if isinstance(code, int) and code >= 400:
            call._failure = _status_error_type(code)
            return
        if isinstance(code, str) and code in _ERROR_CODES:
            call._failure = _ERROR_CODES[code]
            return


_EVENTS: dict[Any, Callable[[Call, Any], None]] = {
    "content_block_delta": _content,
    "message_start": _message_start,
    "message_delta": _message_delta,
    "response.output_text.delta": _content,
    "response.function_call_arguments.delta": _content,
    "response.refusal.delta": _content,
    "response.completed": _response_end,
    "response.incomplete": _response_end,
    "response.failed": _response_end,
    "error": _stream_error,
    None: _stream_error,
    "chunk": lambda call, event: _read_choices(call, _get(event, "chunk")),
}


def _may_carry_usage(chunk: Any) -> bool:
    """False for a chunk of OpenAI's without a usage field: with include_usage every chunk has one, if an empty one."""
    if _get(chunk, "choices") is None:
        return True
    return "usage" in (chunk if isinstance(chunk, dict) else getattr(chunk, "model_fields_set", ()))


# Errors


_ERROR_CODES = {kind: kind for kind in ERROR_TYPES} | {
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "insufficient_quota": "rate_limit",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "auth",
    "invalid_api_key": "auth",
    "context_length_exceeded": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
    "server_error": "server",
    "api_error": "server",
}
_ERROR_CLASSES = {
    "APITimeoutError": "timeout",
    "TimeoutException": "timeout",
    "APIConnectionError": "connection",
    "TransportError": "connection",
    "ContentFilterFinishReasonError": "content_filter",
}
_ERROR_STATUSES = {
    401: "auth",
    402: "auth",
    403: "auth",
    408: "timeout",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_CONTEXT_LENGTH_WORDS = ("context length", "context window", "prompt is too long", "maximum context")


def error_type(error: BaseException | None) -> str:
    """One of ERROR_TYPES for an exception of an SDK, of its HTTP client or of Python, told by its shape."""
    for code in (getattr(error, "code", None), getattr(error, "type", None)):
        if isinstance(code, str) and code in _ERROR_CODES:
            return _ERROR_CODES[code]
    status = _status(error)
    if status is not None:
        if status in (400, 413, 422) and any(words in str(error).lower() for words in _CONTEXT_LENGTH_WORDS):
            return "context_length"
        return _status_error_type(status)
    if isinstance(error, TimeoutError):
        return "timeout"
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _ERROR_CLASSES:
            return _ERROR_CLASSES[ancestor.__name__]
    return "connection" if isinstance(error, OSError) else OTHER


def _status(error: BaseException | str | None) -> int | None:
    """The HTTP status that refused the request, if one did."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _status_error_type(status: int) -> str:
    return _ERROR_STATUSES.get(status, "bad_request" if status < 500 else "server")


# Retries and rate limits, seen at the HTTP client

_RATE_LIMIT_HEADERS = (
    ("x-ratelimit-remaining-requests", "requests"),
    ("x-ratelimit-remaining-tokens", "tokens"),
    ("anthropic-ratelimit-requests-remaining", "requests"),
    ("anthropic-ratelimit-tokens-remaining", "tokens"),
)


def watch_http(client: Client) -> Client:
    """Watch an httpx2 or httpx client, sync or async, that is then given to an SDK as its `http_client`.

    Counts the requests that the SDK repeats by itself during a `track_call`, and reads the rate limit left from the
    responses. Returns the client.
    """
    watched: Any = client
    send = watched.send

    async def send_async(request: Any, **options: Any) -> Any:
        call = _attempt()
        try:
            response = await send(request, **options)
        except Exception as error:
            _attempt_failed(call, error)
            raise
        _attempt_answered(call, response)
        return response

    def send_sync(request: Any, **options: Any) -> Any:
        call = _attempt()
        try:
            response = send(request, **options)
        except Exception as error:
            _attempt_failed(call, error)
            raise
        _attempt_answered(call, response)
        return response

    watched.send = send_async if inspect.iscoroutinefunction(send) else send_sync
    return client


def _attempt() -> Call | None:
    call = _current.get()
    if call is None or call.outcome is not None:
        return None
    if call._attempt_failure is not None:
        RETRIES.labels(*call._pair, call._attempt_failure).inc()
        call._attempt_failure = None
    return call


def _attempt_failed(call: Call | None, error: Exception) -> None:
    if call is not None:
        call._attempt_failure = error_type(error)


def _attempt_answered(call: Call | None, response: Any) -> None:
    if call is None:
        return
    if response.status_code >= 400:
        call._attempt_failure = _status_error_type(response.status_code)
    for header, resource in _RATE_LIMIT_HEADERS:
        value = response.headers.get(header)
        if value is not None and value.isdecimal():
            call.rate_limit(resource, int(value))


# The longest prompt of the last minute


def _map(path: Path, size: int) -> mmap.mmap:
    """A private file in memory. Raises OSError when the disk is full, which a write into the map could not do."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size and os.pwrite(descriptor, bytes(size), 0) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class _Peaks(Collector):
    """The true maximum prompt length of the last 60 s per provider and model, over all workers.

    Each worker keeps a ring of 5 s slots per pair, in memory or, with several workers, in a file of its own that
    whichever worker is scraped reads. A word is `slot number << 32 | length`: written at once, and stale by itself, so
    a worker that dies leaves nothing to clean up. One slot more than a minute has makes up for the one that is begun.
    """

    SLOT_SECONDS = 5
    SLOTS = 60 // SLOT_SECONDS + 1
    KEY_BYTES = 248
    RECORD_WORDS = 1 + KEY_BYTES // 8 + SLOTS  # length of the key, key, ring
    RECORDS = 1024

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: memoryview | None = None
        self._unshared = False  # there are other workers, and this one's file could not be had
        self._records: dict[tuple[str, str], int] = {}

    def observe(self, pair: tuple[str, str], length: int) -> None:
        slot = int(time.time()) // self.SLOT_SECONDS
        with self._lock:
            words = self._open()
            at = self._ring(words, pair) + slot % self.SLOTS
            word = words[at]
            if word >> 32 != slot or word & 0xFFFFFFFF < length:
                words[at] = slot << 32 | min(max(length, 0), 0xFFFFFFFF)

    def touch(self, pair: tuple[str, str]) -> None:
        """Let the pair exist, at 0."""
        with self._lock:
            self._ring(self._open(), pair)

    def forget(self) -> None:
        """Open anew on the next use: after a fork the worker has another file."""
        self._lock = threading.Lock()
        self._words = None
        self._unshared = False
        self._records = {}

    def _open(self) -> memoryview:
        if self._words is None:
            size = self.RECORDS * self.RECORD_WORDS * 8
            folder = exposition.directory() if exposition is not None else None
            if folder is None:
                memory = mmap.mmap(-1, size)
            else:
                try:
                    memory = _map(folder / f"llm_prompt_peaks_{exposition.worker()}.ring", size)
                except OSError as error:
                    logger.warning("longest LLM prompts of this worker are not shared: %s", error)
                    memory = mmap.mmap(-1, size)
                    self._unshared = True
            self._words = memoryview(memory).cast("Q")
            self._records = dict(self._scan(self._words))
        return self._words

    def _ring(self, words: memoryview, pair: tuple[str, str]) -> int:
        """Where the ring of the pair begins. A new pair gets a record; the last one is kept for `other`."""
        at = self._records.get(pair)
        if at is None:
            key = "\0".join(pair).encode()
            full = len(self._records) >= self.RECORDS - 1 or len(key) > self.KEY_BYTES
            if full and pair != (OTHER, OTHER):
                return self._ring(words, (OTHER, OTHER))
            record = len(self._records) * self.RECORD_WORDS
            words.cast("B")[(record + 1) * 8 : (record + 1) * 8 + len(key)] = key
            words[record] = len(key)  # last, as a reader takes the record from here on
            at = self._records[pair] = record + 1 + self.KEY_BYTES // 8
        return at

    def _scan(self, words: memoryview) -> Iterator[tuple[tuple[str, str], int]]:
        octets = words.cast("B")
        for record in range(0, len(words), self.RECORD_WORDS):
            if not words[record]:
                return
            provider, model = bytes(octets[(record + 1) * 8 : (record + 1) * 8 + words[record]]).decode().split("\0")
            yield (provider, model), record + 1 + self.KEY_BYTES // 8

    def describe(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "llm_prompt_length_characters_max", "Longest prompt of the last 60 seconds", labels=_PAIR
        )

    def collect(self) -> Iterable[GaugeMetricFamily]:
        oldest = int(time.time()) // self.SLOT_SECONDS - self.SLOTS + 1
        peaks: dict[tuple[str, str], int] = {}
        for words in self._all_workers():
            for pair, at in self._scan(words):
                ring = words[at : at + self.SLOTS]
                lengths = [word & 0xFFFFFFFF for word in ring if word >> 32 >= oldest]
                peaks[pair] = max(peaks.get(pair, 0), *lengths, 0)
        for family in self.describe():
            for pair, length in peaks.items():
                family.add_metric(pair, length)
            yield family

    def _all_workers(self) -> Iterator[memoryview]:
        folder = exposition.directory() if exposition is not None else None
        if folder is None or self._unshared:
            with self._lock:
                yield self._open()
        if folder is not None:
            for path in folder.glob("llm_prompt_peaks_*.ring"):
                content = path.read_bytes()
                if len(content) == self.RECORDS * self.RECORD_WORDS * 8:  # not one that is just being made
                    yield memoryview(content).cast("Q")


_peaks = _Peaks()
REGISTRY.register(_peaks)
os.register_at_fork(after_in_child=_peaks.forget)
