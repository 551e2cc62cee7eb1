# SPDX-License-Identifier: Apache-2.0
"""One LLM call: a context manager that measures it, and what is counted when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from . import metrics
from .config import config
from .errors import error_status, error_type
from .metrics import OPERATIONS, OTHER, TOKEN_DETAILS
from .peaks import peaks
from .prices import Usage
from .readers import may_carry_usage, read_usage, read_whole, reader, unreadable

logger = logging.getLogger(__name__)

Response = TypeVar("Response")
Item = TypeVar("Item")


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
    pair = config.pair(provider, model)
    metrics.TOKENS.labels(*pair, "input").inc(usage.input_tokens)
    metrics.TOKENS.labels(*pair, "output").inc(usage.output_tokens)
    metrics.REQUEST_TOKENS.labels(*pair, "input").observe(usage.input_tokens)
    metrics.REQUEST_TOKENS.labels(*pair, "output").observe(usage.output_tokens)
    for detail, tokens in zip(TOKEN_DETAILS, (usage.cache_read, usage.cache_write, usage.reasoning), strict=True):
        if tokens:
            metrics.TOKEN_DETAIL.labels(*pair, detail).inc(tokens)
    price = config.prices.get((provider, model))
    if price is None:
        metrics.UNPRICED.labels(*pair).inc()
    else:
        metrics.COST.labels(*pair).inc(price.cost(usage))


current_call: ContextVar[Call | None] = ContextVar("llm_call", default=None)


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
        self._pair = config.pair(provider, model)
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
        metrics.IN_PROGRESS.labels(*self._pair).inc()
        if self._prompt_length is not None:
            metrics.PROMPT_LENGTH.labels(*self._pair).observe(self._prompt_length)
            peaks.observe(self._pair, self._prompt_length)
        self._outer = current_call.get()
        current_call.set(self)
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
            read_whole(self, response)
        except Exception as error:
            unreadable(error)
        return response

    def rate_limit(self, resource: str, remaining: int) -> None:
        """Tell how many `requests` or `tokens` the provider's rate limit leaves. `watch_http` does it from headers."""
        metrics.RATE_LIMIT_REMAINING.labels(*self._pair, resource).set(remaining)

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
                        read = reader(chunk)
                    read(self, chunk)
                except Exception as error:
                    read = unreadable(error)
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
                        read = reader(chunk)
                    read(self, chunk)
                except Exception as error:
                    read = unreadable(error)
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
        if current_call.get() is self:
            current_call.set(self._outer)
        self._outer = None
        metrics.IN_PROGRESS.labels(*self._pair).dec()
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

        metrics.REQUESTS.labels(*self._pair, self.operation, self.outcome).inc()
        metrics.DURATION.labels(*self._pair, self.operation, self.outcome).observe(ended - self._started)
        if failure is not None:
            metrics.ERRORS.labels(*self._pair, failure).inc()
        for reason in self.finish_reasons:
            metrics.FINISHES.labels(*self._pair, reason).inc()
        if self._first_token is not None:
            metrics.TIME_TO_FIRST_TOKEN.labels(*self._pair).observe(self._first_token - self._started)
        if self.usage is not None:
            _count(self.usage, self.provider, self.model)
            if self._first_token is not None and self.outcome == "success":
                # Reasoning that was not streamed took place before the first token, so it does not count here.
                after = self.usage.output_tokens - (0 if self._reasoning_streamed else self.usage.reasoning) - 1
                if after > 0:
                    metrics.TIME_PER_OUTPUT_TOKEN.labels(*self._pair).observe((ended - self._first_token) / after)
        missing = self._usage_missing(error)
        if missing is not None:
            metrics.USAGE_MISSING.labels(*self._pair, missing).inc()

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
            refused = self._last_chunk is None and error_status(cause) is not None
            return None if refused or (isinstance(cause, str) and self.usage is not None) else "error"
        if self.outcome == "success" and self.usage is not None:
            return None
        if self.outcome == "cancelled" or (self._source is not None and not self._exhausted):
            return "cancelled"
        if self._source is not None and not may_carry_usage(self._last_chunk):
            return "not_requested"
        return "not_returned"


def _is_cancellation(error: BaseException | str | None) -> bool:
    return isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit)
