"""Faults of the simulated LLM provider: slow, failing, limited, expensive."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from app.faults.base import Fault
from app.llm import SimulatedBehaviour

LLMErrorKind = Literal[
    "timeout",
    "connection",
    "auth",
    "bad_request",
    "context_length",
    "content_filter",
    "overloaded",
    "server",
    "other",
]


class LLMFault(Fault):
    """Base of the faults of the simulated LLM provider."""

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        """The provider's behaviour while the fault is on."""
        raise NotImplementedError


class LLMSlow(LLMFault):
    """The model has a high TTFT and TPOT."""

    name = "llm-slow"
    first_token_seconds: float = Field(10, ge=0, le=120)
    tokens_per_second: float = Field(10, gt=0, le=10_000)

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(
            behaviour, first_token_seconds=self.first_token_seconds, tokens_per_second=self.tokens_per_second
        )


class LLMErrors(LLMFault):
    """A share of the calls fails."""

    name = "llm-errors"
    share: Annotated[float, Field(gt=0, le=1, description="Share of calls that fail.")] = 0.5
    kind: LLMErrorKind = "server"

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, error_share=self.share, error_kind=self.kind)


class LLMRateLimit(LLMFault):
    """The provider rejects calls above a rate."""

    name = "llm-rate-limit"
    requests_per_minute: int = Field(0, ge=0, le=60_000, description="Per worker.")

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, requests_per_minute=self.requests_per_minute)


class LLMIncomplete(LLMFault):
    """Answers end in the middle, without an error and without usage."""

    name = "llm-incomplete"
    share: Annotated[float, Field(gt=0, le=1, description="Share of answers that end early.")] = 0.5

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, incomplete_share=self.share)


class LLMTokenFlood(LLMFault):
    """Answers are very long, so tokens and cost grow."""

    name = "llm-token-flood"
    output_tokens: int = Field(5000, ge=1, le=100_000)
    tokens_per_second: float = Field(5000, gt=0, le=100_000)

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, output_tokens=self.output_tokens, tokens_per_second=self.tokens_per_second)
