# SPDX-License-Identifier: Apache-2.0
"""What has been read of one model response so far. Readers fill it in, event by event; `Call` counts it at the end."""

from __future__ import annotations

import time
from typing import Any

from ..metrics import OTHER
from ..prices import Usage
from .numbers import BESIDE, UNREADABLE_PART, Numbers, reported, resolved

# The providers' finish reasons, in lower case, and ours.
_FINISH_REASONS = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "complete": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_tokens_reached": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
}
# Finish reasons that mean a failure, and its error type.
_FAILURES = {
    "error": "server",
    "failed": "server",
    "abort": "server",
    "aborted": "server",
    "network_error": "connection",
    "insufficient_system_resource": "overloaded",
}


class Answer:
    """One response: `finish_reasons` by choice, reported `numbers` of tokens, `failure` if the provider reported one.

    `ended` is True once the provider has marked the response as complete. `outcome` is set if it reported another one.
    """

    __slots__ = (
        "ended",
        "failure",
        "finish_reasons",
        "first_token",
        "has_content",
        "id",
        "last",
        "numbers",
        "open",
        "outcome",
        "output_is_a_guess",
        "plain_choice",
        "plain_chunk",
        "reasoning_streamed",
        "steps",
    )

    def __init__(self) -> None:
        self.id: Any = None
        self.numbers: Numbers = {}
        self.steps: list[Numbers] = []  # of earlier model calls within the same response
        self.finish_reasons: dict[int, str] = {}
        self.open: set[int] = set()  # choices that were seen and have not finished
        self.failure: str | None = None
        self.outcome: str | None = None
        self.ended = False
        self.first_token: float | None = None
        self.reasoning_streamed = False
        self.has_content = False
        self.output_is_a_guess = False
        self.last: Any = None
        self.plain_chunk = self.plain_choice = -1  # number of fields in a chunk, and in its choice, with text only

    def finish(self, reason: Any, choice: int = 0) -> None:
        """A choice has ended. Values that are not a reason are ignored."""
        if isinstance(reason, dict):  # SGLang's native form
            reason = reason.get("type")
        if not reason or not isinstance(reason, str):
            return
        word = reason.lower()
        if word in _FAILURES:
            self.failure = self.failure or _FAILURES[word]
        self.finish_reasons[choice] = _FINISH_REASONS.get(word, OTHER)
        self.open.discard(choice)

    def token(self, reasoning: bool = False) -> None:
        """Some output has arrived."""
        self.has_content = True
        if self.first_token is None:
            self.first_token = time.perf_counter()
            self.reasoning_streamed = reasoning

    def usage(self, usage: Any, answer_id: Any = None) -> None:
        """A usage report: the first one, a more complete one, or one of another model call."""
        numbers = reported(usage)
        if not any(numbers.get(name) for name in ("input", "output", "total")) and self.numbers:
            return  # an empty report at the end must not erase the others
        if self._is_another_step(numbers, answer_id):
            self.steps.append(self.numbers)
            self.numbers = {}
        self.id = answer_id or self.id
        if BESIDE not in numbers and 0 < numbers.get("output", 0) < self.numbers.get("output", 0):
            # Neither a running total nor another step, as the input is the same: one of the two reports is wrong.
            numbers = {**numbers, "output": self.numbers["output"], "total": 0, UNREADABLE_PART: 1}
        for name, tokens in numbers.items():
            if tokens or name not in self.numbers:
                self.numbers[name] = tokens

    def _is_another_step(self, numbers: Numbers, answer_id: Any) -> bool:
        """Whether a report belongs to another model call: those of one call have the same id and the same input."""
        if not self.numbers or BESIDE in numbers:
            return False
        if answer_id and self.id and answer_id != self.id:
            return True
        given, before = numbers.get("input"), self.numbers.get("input")
        return bool(given and before and given != before)

    def add_usage(self, usage: Any) -> None:
        """A usage report that is added to the earlier ones: LangChain's."""
        for name, tokens in reported(usage).items():
            self.numbers[name] = self.numbers.get(name, 0) + tokens

    def is_whole(self) -> bool:
        """True if the provider ended every choice that it began."""
        return not self.open and bool(self.finish_reasons or self.ended)

    def resolve(self) -> tuple[Usage | None, str | None]:
        """The usage of all steps, None if it is unknown; and why it is incomplete, None if it is complete."""
        total: Usage | None = None
        missing = None
        for numbers in (*self.steps, self.numbers):
            usage, reason = resolved(numbers)
            missing = missing or reason
            if usage is None or not (usage.input_tokens or usage.output_tokens):
                continue
            total = usage if total is None else total + usage
        if total is None:
            return None, missing or "not_returned"
        if self.output_is_a_guess or not total.input_tokens or (self.has_content and not total.output_tokens):
            missing = missing or "not_returned"
        return total, missing
