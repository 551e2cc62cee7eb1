"""Input and output of an LLM service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from app.telemetry.llm import Call, Usage

__all__ = ["Chunk", "Completion", "LLMError", "Message", "Provider", "Usage"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `usage` is None if the provider did not report it."""

    text: str
    model: str
    provider: str
    usage: Usage | None
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer. The last one has no text, but the finish reason and, if known, the usage."""

    text: str
    usage: Usage | None = None
    finish_reason: str | None = None


class LLMError(Exception):
    """A call failed. `kind` is one of the error types of llm_errors_total, or `incomplete`: the answer was cut off.

    The provider's own message is left out on purpose: it may repeat parts of the prompt or of the key.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(f"the LLM call failed: {kind}")
        self.kind = kind


class Provider(Protocol):
    """An interface to models. Each method passes the provider's response to `call`, which measures it."""

    name: str
    default_model: str

    async def complete(self, messages: Sequence[Message], model: str, call: Call) -> str:
        """The text of a whole answer."""
        ...

    def stream(self, messages: Sequence[Message], model: str, call: Call) -> AsyncIterator[str]:
        """The text of an answer, piece by piece; an asynchronous generator."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...
