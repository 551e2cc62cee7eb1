# SPDX-License-Identifier: Apache-2.0
"""How a call ended: its outcome, the type of an error, and why its final usage is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from . import readers
from .errors import completion_in, error_status, error_type, is_callers_own, is_cancellation
from .metrics import OTHER
from .misuse import NotAnAnswerError
from .readers import Answer


@dataclass(slots=True)
class Ending:
    """What is known when one response has ended."""

    answer: Answer
    error: BaseException | None
    """The exception that ended the block."""
    failure: BaseException | None
    """The exception that ended the stream; may be the same as `error`."""
    streamed: bool
    begun: bool
    """Whether something was passed to record or stream."""
    exhausted: bool
    """Whether the stream was read to its end."""

    @property
    def cause(self) -> BaseException | None:
        return self.error if self.failure is None else self.failure


def judge(ending: Ending) -> tuple[str, str | None]:
    """The outcome (success, incomplete, cancelled, error), and for an error its type."""
    answer, cause = ending.answer, ending.cause
    if answer.failure is not None:
        return "error", answer.failure
    if isinstance(cause, NotAnAnswerError):
        return "cancelled", None
    if ending.failure is None and cause is not None and not is_cancellation(cause) and readers.is_malformed(answer):
        return "error", "server"  # the caller failed on a malformed response
    if cause is not None and completion_in(cause) is not None:
        # Complete, but rejected by the SDK: the caller's token limit was reached, or the provider's content filter.
        kind = error_type(cause)
        return ("success", None) if kind == OTHER else ("error", kind)
    if answer.outcome is not None:
        return answer.outcome, None
    if not ending.streamed and (ending.begun or cause is None):
        return "success", None
    if ending.exhausted:
        return ("success" if answer.is_whole() else "incomplete"), None
    if cause is None or is_cancellation(cause):
        # If complete, only the usage after it was not read; otherwise the caller stopped reading.
        return ("success" if ending.streamed and answer.is_whole() else "cancelled"), None
    kind = error_type(cause)
    if ending.failure is None and (is_callers_own(cause) or (ending.streamed and kind == OTHER)):
        return "cancelled", None
    return "error", kind


def why_missing(ending: Ending, outcome: str, has_usage: bool, missing: str | None) -> str | None:
    """Why the final usage is unknown, None if it is known; `missing` is the reason found in the response itself."""
    answer = ending.answer
    complete = has_usage and missing is None
    if outcome == "error":
        # A rejected call used no tokens; one that ended early may have used tokens that are not reported.
        rejected = not ending.streamed and not ending.begun and error_status(ending.cause) is not None
        final = complete and answer.failure is not None and (not ending.streamed or answer.is_whole())
        return None if rejected or final else "error"
    if outcome == "success" and complete:
        return None
    if outcome == "cancelled" or (ending.streamed and not ending.exhausted):
        return "cancelled"
    if missing == "unreadable":
        return missing
    return "not_returned" if not ending.streamed or readers.may_carry_usage(answer) or has_usage else "not_requested"
