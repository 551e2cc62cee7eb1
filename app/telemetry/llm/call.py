# SPDX-License-Identifier: Apache-2.0
"""One LLM call: a context manager that measures it, and counts it when it ends.

request -> record(response) or stream(source) -> end of the block
|-- llm_time_to_first_token_seconds --|
|-- llm_request_duration_seconds -----------|   without the time that the caller spends on a complete response
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from . import readers
from .config import config
from .errors import completion_in
from .metrics import ERRORS, FINISHES, OPERATIONS, OTHER, RATE_LIMIT_REMAINING, USAGE_MISSING, series_of
from .misuse import NotAnAnswerError, answer_of, check_stream
from .outcome import Ending, judge, why_missing
from .peaks import peaks
from .prices import Usage
from .prompt import prompt_length
from .readers import Answer
from .shapes import get
from .streams import TwoWayStream
from .tokens import count_usage

log = logging.getLogger("sightline_telemetry")

Response = TypeVar("Response")
Item = TypeVar("Item")

current_call: ContextVar[Call | None] = ContextVar("llm_call", default=None)
calls_of_request: ContextVar[list[Call] | None] = ContextVar("llm_calls_of_request", default=None)


def track_call(provider: str, model: str, *, operation: str = "chat", prompt: Any = None) -> Call:
    """Measure one LLM call: a context manager, `with` or `async with`, around the request and its complete response.

    Inside the block, pass the response to `call.record(...)` or the stream to `call.stream(...)`.

    Args:
        provider: the label `provider`, if `configure` allows it, otherwise `other`.
        model: the label `model`, likewise: the model as requested.
        operation: the label `operation`, one of OPERATIONS, otherwise `other`.
        prompt: a text, its length, or the list of messages; only its length in characters is kept (`prompt_length`).

    Raises:
        TypeError: `prompt` is none of these.
        ValueError: `prompt` is a negative length.
    """
    return Call(provider, model, operation, None if prompt is None else prompt_length(prompt))


class Call:
    """One LLM call. `usage`, `finish_reasons`, `outcome` and `error` are filled in as they become known.

    The outcome, set at the end of the block, is
    - success: the response is complete;
    - error: the provider or the connection to it failed; `error` is one of ERROR_TYPES;
    - cancelled: the caller stopped waiting or reading before the end, failed itself, or never sent the request;
    - incomplete: the response ended without a finish reason, although nothing raised an exception.

    Each response passed to `record` or `stream` counts as a separate call: in an agent loop inside one block, the
    duration of the second begins at the end of the first. One block for each is better.
    """

    __slots__ = (
        "_answer",
        "_attempt_failure",
        "_begun",
        "_ended",
        "_exhausted",
        "_failure",
        "_generator",
        "_outer",
        "_prompt_length",
        "_recorded",
        "_series",
        "_source",
        "_started",
        "_unreadable",
        "error",
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
        self.error: str | None = None
        self.usage: Usage | None = None
        self._series = series_of(config.pair(provider, model))
        self._prompt_length = prompt_length
        self._started = 0.0
        self._attempt_failure: str | None = None
        self._outer: Call | None = None
        self._unreadable = False
        self._expect_answer()

    def _expect_answer(self) -> None:
        self._answer = Answer()
        self._begun = False  # whether something was passed to record or stream
        self._recorded: Any = None
        self._source: Any = None
        self._generator: Any = None
        self._exhausted = False
        self._ended: float | None = None
        self._failure: BaseException | None = None

    @property
    def finish_reasons(self) -> list[str]:
        """Why the model stopped, for each choice that has ended."""
        return [reason for _, reason in sorted(self._answer.finish_reasons.items())]

    # The context manager

    def __enter__(self) -> Self:
        if self._started:
            raise RuntimeError("this call has already been measured: each one needs its own track_call()")
        self._series.in_progress.inc()
        if self._prompt_length is not None:
            self._series.prompt_length.observe(self._prompt_length)
            peaks.observe(self._series.pair, self._prompt_length)
        self._outer = current_call.get()
        current_call.set(self)
        if (calls := calls_of_request.get()) is not None:
            calls.append(self)
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

    def abandon(self) -> None:
        """End the call as cancelled and close its synchronous stream, when it is no longer read."""
        if self._generator is None or not inspect.isgenerator(self._generator) or self._generator.gi_running:
            return
        self.__exit__(None, None, None)

    # Called with the response

    def record(self, response: Response) -> Response:
        """Read usage and finish reasons from a complete response, and return it.

        Raises:
            NotAnAnswerError: a TypeError, for a stream, an awaitable or a context manager.
        """
        now = time.perf_counter()
        fault: Exception | None = None
        try:
            answer = answer_of(response)
        except NotAnAnswerError:
            raise
        except Exception as error:  # a raw response whose body is not JSON: the caller will get the same error
            answer, fault = None, error
        if self._begun and (response is self._recorded or self._is_known(answer)):
            return response
        self._begin_answer()
        self._ended = now
        self._recorded = response
        if fault is not None:
            self._answer.failure = "server"
        self._read_whole(answer)
        return response

    def _read_whole(self, response: Any) -> None:
        try:
            if not readers.whole(self._answer, response):
                self._note_unreadable(type(response).__name__)
        except Exception as error:
            self._note_unreadable(type(error).__name__)
        if self._source is None:
            self._answer.first_token = None  # unknown without a stream

    def rate_limit(self, resource: str, remaining: int) -> None:
        """Set the remaining `requests` or `tokens` of the provider's rate limit. `watch_http` does it from headers."""
        self._series.of(RATE_LIMIT_REMAINING, resource).set(remaining)

    @overload
    def stream(self, source: AsyncIterable[Item]) -> AsyncIterator[Item]: ...
    @overload
    def stream(self, source: Iterable[Item]) -> Iterator[Item]: ...
    def stream(self, source: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item] | Iterator[Item]:
        """Pass the events of a provider's stream through, and record usage, finish reasons and the end of the stream.

        If the `with` block is left early, the provider's stream is closed (an asynchronous one by `async with`).

        Raises:
            NotAnAnswerError: a TypeError, if `source` is not a stream of events; for a stream of text at its first
            item.
        """
        check_stream(source)
        self._begin_answer()
        self._source = source
        if hasattr(source, "__aiter__") and hasattr(source, "__iter__"):  # LiteLLM's, sync or async
            both: Any = source
            self._generator = TwoWayStream(lambda: self._pass_sync(both), lambda: self._pass_async(both))
        elif hasattr(source, "__aiter__"):
            self._generator = self._pass_async(source)  # type: ignore[arg-type]
        else:
            self._generator = self._pass_sync(source)
        return self._generator  # type: ignore[no-any-return]

    def _pass_sync(self, source: Iterable[Item]) -> Iterator[Item]:
        answer, read = self._answer, readers.event
        try:
            for event in source:
                try:
                    if read(answer, event):
                        read = readers.by_class[event.__class__]
                except NotAnAnswerError:
                    raise
                except Exception as error:
                    self._note_unreadable(type(error).__name__)
                yield event
        except BaseException as error:
            self._broken(answer, error)
            raise
        self._complete(answer)

    async def _pass_async(self, source: AsyncIterable[Item]) -> AsyncIterator[Item]:
        answer, read = self._answer, readers.event
        try:
            async for event in source:
                try:
                    if read(answer, event):
                        read = readers.by_class[event.__class__]
                except NotAnAnswerError:
                    raise
                except Exception as error:
                    self._note_unreadable(type(error).__name__)
                yield event
        except BaseException as error:
            self._broken(answer, error)
            raise
        self._complete(answer)

    def _broken(self, answer: Answer, error: BaseException) -> None:
        if self._answer is answer and self._ended is None:
            self._ended = time.perf_counter()
            self._failure = error

    def _complete(self, answer: Answer) -> None:
        if self._answer is answer:
            self._ended = time.perf_counter()
            self._exhausted = True

    def _note_unreadable(self, name: str) -> None:
        """Log, once per call, that a response has an unknown shape; it is passed on unchanged."""
        if not self._unreadable:
            self._unreadable = True
            log.warning("LLM response of an unknown shape, not measured: %s", name)

    # Several responses in one block

    def _is_known(self, response: Any) -> bool:
        """True for the final object of a stream that was read, such as `stream.get_final_message()`."""
        known = self._answer.id or get(self._answer.last, "id")
        return known is not None and known == get(response, "id") and bool(self._answer.numbers)

    def _begin_answer(self) -> None:
        """Count the previous response in this block, if there is one, as a separate call."""
        if self._begun and self.outcome is None:
            started = self._ended or time.perf_counter()
            self._count(None)
            self._expect_answer()
            self._started = started
        self._begun = True

    # How it ended

    def _finish(self, error: BaseException | None) -> None:
        if self.outcome is not None:
            return
        self.outcome = "error"  # until it is known; also prevents a second count
        if current_call.get() is self:
            current_call.set(self._outer)
        self._outer = None
        self._series.in_progress.dec()
        try:
            if not self._answer.numbers and (completion := completion_in(error)) is not None:
                self._begun = True
                self._read_whole(completion)
            self.outcome = self._count(error)
        except Exception as fault:  # such as an error whose attributes raise
            log.warning("LLM call not measured: %s", type(fault).__name__)
        self._answer.last = self._recorded = None

    def _count(self, error: BaseException | None) -> str:
        """Add one response to the metrics, and return its outcome."""
        answer = self._answer
        ended = time.perf_counter() if self._ended is None else self._ended
        streamed = self._source is not None
        ending = Ending(answer, error, self._failure, streamed, self._begun, self._exhausted)
        outcome, self.error = judge(ending)
        self.usage, missing = answer.resolve()

        requests, durations = self._series.ended(self.operation, outcome)
        requests.inc()
        durations.observe(ended - self._started)
        if self.error is not None:
            self._series.of(ERRORS, self.error).inc()
        for reason in answer.finish_reasons.values():
            self._series.of(FINISHES, reason).inc()
        if answer.first_token is not None:
            self._series.time_to_first_token.observe(answer.first_token - self._started)
        if self.usage is not None:
            count_usage(self.usage, self.provider, self.model)
            if answer.first_token is not None and outcome == "success":
                # Reasoning that was not streamed happened before the first token, so it is left out here.
                after = self.usage.output_tokens - (0 if answer.reasoning_streamed else self.usage.reasoning) - 1
                if after > 0:
                    self._series.time_per_output_token.observe((ended - answer.first_token) / after)
        missing = why_missing(ending, outcome, self.usage is not None, missing)
        if missing is not None:
            self._series.of(USAGE_MISSING, missing).inc()
        return outcome
