"""A provider without a network: for load tests and drills without a key. Its label is `simulated`."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.telemetry.llm import ERROR_TYPES, Call

from .types import Message

MODELS = ("simulated-small", "simulated-large")
_OPENING = "This is a simulated answer. "
_WORDS = (
    *("latency", "traffic", "errors", "saturation", "request", "response", "service", "database", "query", "index"),
    *("token", "model", "prompt", "answer", "cache", "queue", "worker", "pool", "budget", "alert", "rule", "panel"),
)
_CHUNK_SECONDS = 0.02  # a fast model sends several tokens at a time, as over a real network


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBehaviour:
    """How the simulated model behaves. Replace it at run time: `provider.behaviour = SimulatedBehaviour(...)`.

    Raises:
        ValueError: a value is out of its range.
    """

    first_token_seconds: float = 0.25
    """Median time to the first token; single calls vary around it as real ones do (log-normal)."""
    tokens_per_second: float = 80.0
    output_tokens: int = 60
    """Median length of an answer."""
    spread: float = 0.3
    """Standard deviation of the logarithm of latency and length; 0: every call alike."""
    error_share: float = 0.0
    """Share of the calls that fail, 0 to 1."""
    error_kind: str = "server"
    """How they fail: an error type of llm_errors_total."""
    incomplete_share: float = 0.0
    """Share of the answers that break off: a stream silently, a complete answer with a `connection` error."""
    requests_per_minute: int = 60_000
    """Rate limit per worker: calls above it fail with `rate_limit`."""
    timeout_seconds: float = 60.0
    """If the first token takes longer, the call fails with `timeout`."""

    def __post_init__(self) -> None:
        for name in ("first_token_seconds", "spread", "timeout_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or more")
        if not 0 < self.tokens_per_second < math.inf:
            raise ValueError("tokens_per_second must be a finite number above 0")
        for name, least in (("output_tokens", 1), ("requests_per_minute", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more")
        for name in ("error_share", "incomplete_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        if self.error_kind not in ERROR_TYPES:
            raise ValueError(f"error_kind must be one of {', '.join(ERROR_TYPES)}")


class SimulatedError(Exception):
    """A simulated failure. The telemetry reads `code` like that of an SDK's exception."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"simulated failure: {kind}")
        self.code = kind


class SimulatedProvider:
    """Deterministic under `seed`: the n-th call of two providers with the same seed and behaviour is the same."""

    name = "simulated"
    default_model = MODELS[0]

    def __init__(self, behaviour: SimulatedBehaviour | None = None, seed: int = 0) -> None:
        self.behaviour = behaviour or SimulatedBehaviour()
        self._seed = seed
        self._calls = 0
        self._recent: deque[float] = deque()  # when the calls of the last minute began

    async def complete(self, messages: Sequence[Message], model: str, call: Call) -> str:
        """The whole answer, after the time that streaming it would have taken."""
        text, finish_reason, usage = "", None, None
        async for chunk in self._chunks(messages, call):
            text += _text(chunk)
            for choice in chunk["choices"]:
                finish_reason = choice["finish_reason"]
            usage = chunk["usage"]
        if finish_reason is None:
            raise SimulatedError("connection")  # a complete response that breaks off is an error for any HTTP client
        call.record({"choices": [{"finish_reason": finish_reason}], "usage": usage})
        return text

    async def stream(self, messages: Sequence[Message], model: str, call: Call) -> AsyncIterator[str]:
        """The answer in pieces."""
        async for chunk in call.stream(self._chunks(messages, call)):
            if text := _text(chunk):
                yield text

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _chunks(self, messages: Sequence[Message], call: Call) -> AsyncIterator[dict[str, Any]]:
        """The answer as an OpenAI-compatible server would stream it."""
        behaviour = self.behaviour
        dice = random.Random(f"{self._seed} {self._calls}")  # noqa: S311  reproducible on purpose
        self._calls += 1
        self._count_against_limit(behaviour, call)

        delay = behaviour.first_token_seconds * dice.lognormvariate(0, behaviour.spread)
        length = max(1, round(behaviour.output_tokens * dice.lognormvariate(0, behaviour.spread)))
        fails = dice.random() < behaviour.error_share
        await asyncio.sleep(min(delay, behaviour.timeout_seconds))
        if delay > behaviour.timeout_seconds:
            raise SimulatedError("timeout")
        if fails:
            raise SimulatedError(behaviour.error_kind)

        per_chunk = max(1, int(behaviour.tokens_per_second * _CHUNK_SECONDS))
        opening = _OPENING
        for sent in range(0, length, per_chunk):
            if sent:
                await asyncio.sleep(per_chunk / behaviour.tokens_per_second)
            words = " ".join(dice.choice(_WORDS) for _ in range(min(per_chunk, length - sent)))
            yield {"choices": [{"delta": {"content": f"{opening}{words} "}, "finish_reason": None}], "usage": None}
            opening = ""
        if behaviour.incomplete_share and dice.random() < behaviour.incomplete_share:
            return
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None}
        # About four characters to a token, as a rule of thumb for English
        prompt_tokens = math.ceil(sum(len(message.content) for message in messages) / 4)
        yield {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": length}}

    def _count_against_limit(self, behaviour: SimulatedBehaviour, call: Call) -> None:
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - 60:
            self._recent.popleft()
        if len(self._recent) >= behaviour.requests_per_minute:
            call.rate_limit("requests", 0)
            raise SimulatedError("rate_limit")
        self._recent.append(now)
        call.rate_limit("requests", behaviour.requests_per_minute - len(self._recent))


def _text(chunk: dict[str, Any]) -> str:
    text: str = chunk["choices"][0]["delta"].get("content", "") if chunk["choices"] else ""
    return text
