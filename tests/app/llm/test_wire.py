"""The service with the official SDKs against real protocols: after each case, every metric to the unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.llm import LLMError
from tests.app.llm.wire import PROMPT, service
from tests.telemetry.llm.fake_provider import (
    ANTHROPIC_USAGE,
    IMMEDIATELY,
    Body,
    FakeProvider,
    Reply,
    anthropic_error,
    anthropic_stream,
    anthropic_whole,
    openai_error,
    openai_stream,
    openai_whole,
)
from tests.telemetry.llm.measured import (
    ANTHROPIC_START,
    ANTHROPIC_TOKENS,
    ERROR,
    FIRST_TOKEN,
    INCOMPLETE,
    OPENAI_TOKENS,
    STREAMED,
    SUCCESS,
    Numbers,
    failed,
    finish,
    measured,
    missing,
    retried,
    tokens,
)

RATE_LIMIT_HEADERS = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984"}
RATE_LIMIT_LEFT = {
    "llm_rate_limit_remaining{resource=requests}": 59.0,
    "llm_rate_limit_remaining{resource=tokens}": 149984.0,
}


@dataclass
class Case:
    name: str
    provider: str
    replies: list[Reply | Callable[[Body], Reply]]
    expected: Numbers
    stream: bool = False
    fails: str | None = None
    text: str = "Hello to you"
    settings: dict[str, Any] = field(default_factory=dict)
    requests: int = 1


ONCE = {"max_retries": 0}

CASES = [
    # OpenAI, whole
    Case("whole", "openai", [openai_whole()], SUCCESS | OPENAI_TOKENS | finish("stop")),
    Case(
        "rate limit headers",
        "openai",
        [openai_whole(headers=RATE_LIMIT_HEADERS)],
        SUCCESS | OPENAI_TOKENS | finish("stop") | RATE_LIMIT_LEFT,
    ),
    Case("length", "openai", [openai_whole("length")], SUCCESS | OPENAI_TOKENS | finish("length")),
    Case("tool calls", "openai", [openai_whole("tool_calls")], SUCCESS | OPENAI_TOKENS | finish("tool_calls")),
    Case(
        "content filter", "openai", [openai_whole("content_filter")], SUCCESS | OPENAI_TOKENS | finish("content_filter")
    ),
    Case("unknown finish reason", "openai", [openai_whole("bored")], SUCCESS | OPENAI_TOKENS | finish("other")),
    Case("no usage", "openai", [openai_whole(usage=None)], SUCCESS | finish("stop") | missing("not_returned")),
    # OpenAI, streamed
    Case("stream", "openai", [openai_stream()], SUCCESS | OPENAI_TOKENS | STREAMED | finish("stop"), stream=True),
    Case(
        "stream without the usage that was asked for",
        "openai",
        [openai_stream(usage=None)],
        SUCCESS | FIRST_TOKEN | finish("stop") | missing("not_returned"),
        stream=True,
    ),
    Case(
        "stream of one token",
        "openai",
        [openai_stream(("Hi",), usage={"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10})],
        SUCCESS | tokens(9, 1, 19e-6) | FIRST_TOKEN | finish("stop"),
        stream=True,
        text="Hi",
    ),
    Case(
        "stream of a tool call",
        "openai",
        [
            openai_stream(
                deltas=[
                    {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "f"}}]},
                    {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
                ],
                finish_reason="tool_calls",
            )
        ],
        SUCCESS | OPENAI_TOKENS | STREAMED | finish("tool_calls"),
        stream=True,
        text="",
    ),
    Case(
        "stream that ends in silence",
        "openai",
        [openai_stream(finish_reason=None)],
        INCOMPLETE | FIRST_TOKEN | missing("not_returned"),
        stream=True,
        fails="incomplete",
    ),
    Case(
        "stream cut on the way",
        "openai",
        [openai_stream(finish_reason=None, cut=True)],
        ERROR | FIRST_TOKEN | failed("connection") | missing("error"),
        stream=True,
        fails="connection",
    ),
    Case(
        "stream with an error on the way",
        "openai",
        [openai_stream(error={"message": "no", "type": "server_error", "code": None})],
        ERROR | FIRST_TOKEN | failed("server") | missing("error"),
        stream=True,
        fails="server",
    ),
    Case(
        "stream that stalls",
        "openai",
        [openai_stream(stall_after=3)],
        ERROR | FIRST_TOKEN | failed("timeout") | missing("error"),
        stream=True,
        fails="timeout",
        settings={"timeout": 3.0},  # more than what comes before the silence takes on a busy machine
    ),
    # OpenAI, refused
    Case("401", "openai", [openai_error(401, "invalid_api_key")], ERROR | failed("auth"), fails="auth"),
    Case("403", "openai", [openai_error(403)], ERROR | failed("auth"), fails="auth"),
    Case("404", "openai", [openai_error(404, "model_not_found")], ERROR | failed("bad_request"), fails="bad_request"),
    Case(
        "400 context length",
        "openai",
        [openai_error(400, "context_length_exceeded")],
        ERROR | failed("context_length"),
        fails="context_length",
    ),
    Case(
        "400 context length of vLLM",
        "openai",
        [openai_error(400, None, "This model's maximum context length is 4096 tokens.")],
        ERROR | failed("context_length"),
        fails="context_length",
    ),
    Case("400", "openai", [openai_error(400)], ERROR | failed("bad_request"), fails="bad_request"),
    Case(
        "400 content filter of Azure",
        "openai",
        [openai_error(400, "content_filter")],
        ERROR | failed("content_filter"),
        fails="content_filter",
    ),
    Case(
        "429 with retry-after, then an answer",
        "openai",
        [openai_error(429, "rate_limit_exceeded", **IMMEDIATELY), openai_whole()],
        SUCCESS | OPENAI_TOKENS | finish("stop") | retried("rate_limit"),
        requests=2,
    ),
    Case(
        "429 with retry-after, then a stream",
        "openai",
        [openai_error(429, "rate_limit_exceeded", **IMMEDIATELY), openai_stream()],
        SUCCESS | OPENAI_TOKENS | STREAMED | finish("stop") | retried("rate_limit"),
        stream=True,
        requests=2,
    ),
    Case(
        "429 for good",
        "openai",
        [openai_error(429, "rate_limit_exceeded", **IMMEDIATELY)],
        ERROR | failed("rate_limit") | retried("rate_limit", 2),
        fails="rate_limit",
        requests=3,
    ),
    Case(
        "500, 503, then an answer",
        "openai",
        [openai_error(500, **IMMEDIATELY), openai_error(503, **IMMEDIATELY), openai_whole()],
        SUCCESS | OPENAI_TOKENS | finish("stop") | retried("server") | retried("overloaded"),
        requests=3,
    ),
    Case("500 for good", "openai", [openai_error(500)], ERROR | failed("server"), fails="server", settings=ONCE),
    Case(
        "dropped, then an answer",
        "openai",
        [Reply(drop=True), openai_whole()],
        SUCCESS | OPENAI_TOKENS | finish("stop") | retried("connection"),
        requests=2,
    ),
    Case(
        "dropped for good",
        "openai",
        [Reply(drop=True)],
        ERROR | failed("connection") | missing("error"),
        fails="connection",
        settings=ONCE,
    ),
    Case(
        "timeout",
        "openai",
        [openai_whole(delay=60)],
        ERROR | failed("timeout") | missing("error"),
        fails="timeout",
        settings={"timeout": 1.0, "max_retries": 0},
    ),
    Case(
        "timeout, then an answer",
        "openai",
        [openai_whole(delay=60), openai_whole()],
        SUCCESS | OPENAI_TOKENS | finish("stop") | retried("timeout"),
        requests=2,
        settings={"timeout": 3.0},
    ),
    # Anthropic, whole
    Case("whole", "anthropic", [anthropic_whole()], SUCCESS | ANTHROPIC_TOKENS | finish("stop")),
    Case("refusal", "anthropic", [anthropic_whole("refusal")], SUCCESS | ANTHROPIC_TOKENS | finish("content_filter")),
    Case("length", "anthropic", [anthropic_whole("max_tokens")], SUCCESS | ANTHROPIC_TOKENS | finish("length")),
    Case("tool use", "anthropic", [anthropic_whole("tool_use")], SUCCESS | ANTHROPIC_TOKENS | finish("tool_calls")),
    Case(
        "thinking",
        "anthropic",
        [anthropic_whole(usage=ANTHROPIC_USAGE | {"output_tokens_details": {"thinking_tokens": 12}})],
        SUCCESS | ANTHROPIC_TOKENS | finish("stop") | {"llm_token_details_total{detail=output_reasoning}": 12.0},
    ),
    Case(
        "rate limit headers",
        "anthropic",
        [
            anthropic_whole(
                headers={
                    "anthropic-ratelimit-requests-remaining": "59",
                    "anthropic-ratelimit-tokens-remaining": "149984",
                }
            )
        ],
        SUCCESS | ANTHROPIC_TOKENS | finish("stop") | RATE_LIMIT_LEFT,
    ),
    # Anthropic, streamed
    Case(
        "stream", "anthropic", [anthropic_stream()], SUCCESS | ANTHROPIC_TOKENS | STREAMED | finish("stop"), stream=True
    ),
    Case(
        "stream that ends in silence",
        "anthropic",
        [anthropic_stream(stop_reason=None)],
        INCOMPLETE | ANTHROPIC_START | FIRST_TOKEN | missing("not_returned"),
        stream=True,
        fails="incomplete",
    ),
    Case(
        "stream cut on the way",
        "anthropic",
        [anthropic_stream(stop_reason=None, cut=True)],
        ERROR | ANTHROPIC_START | FIRST_TOKEN | failed("connection") | missing("error"),
        stream=True,
        fails="connection",
    ),
    Case(
        "stream with an error on the way",
        "anthropic",
        [anthropic_stream(error={"type": "overloaded_error", "message": "Overloaded"})],
        ERROR | ANTHROPIC_START | FIRST_TOKEN | failed("overloaded") | missing("error"),
        stream=True,
        fails="overloaded",
    ),
    # Anthropic, refused
    Case("401", "anthropic", [anthropic_error(401, "authentication_error")], ERROR | failed("auth"), fails="auth"),
    Case(
        "400 context length",
        "anthropic",
        [anthropic_error(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum")],
        ERROR | failed("context_length"),
        fails="context_length",
    ),
    Case(
        "400",
        "anthropic",
        [anthropic_error(400, "invalid_request_error")],
        ERROR | failed("bad_request"),
        fails="bad_request",
    ),
    Case(
        "529, then a stream",
        "anthropic",
        [anthropic_error(529, "overloaded_error", **IMMEDIATELY), anthropic_stream()],
        SUCCESS | ANTHROPIC_TOKENS | STREAMED | finish("stop") | retried("overloaded"),
        stream=True,
        requests=2,
    ),
    Case(
        "529 for good",
        "anthropic",
        [anthropic_error(529, "overloaded_error", **IMMEDIATELY)],
        ERROR | failed("overloaded") | retried("overloaded", 2),
        fails="overloaded",
        requests=3,
    ),
    Case(
        "429 with retry-after, then an answer",
        "anthropic",
        [anthropic_error(429, "rate_limit_error", **IMMEDIATELY), anthropic_whole()],
        SUCCESS | ANTHROPIC_TOKENS | finish("stop") | retried("rate_limit"),
        requests=2,
    ),
    Case(
        "timeout",
        "anthropic",
        [anthropic_whole(delay=60)],
        ERROR | failed("timeout") | missing("error"),
        fails="timeout",
        settings={"timeout": 1.0, "max_retries": 0},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.provider}: {case.name}")
async def test_every_metric(case: Case, fake: FakeProvider, model: str) -> None:
    fake.replies = case.replies[:]
    text, failure = "", None
    async with service(fake, case.provider, model, **case.settings) as llm:
        try:
            if case.stream:
                async for chunk in llm.stream(PROMPT):
                    text += chunk.text
            else:
                text = (await llm.complete(PROMPT)).text
        except LLMError as error:
            failure = error.kind
    assert failure == case.fails
    assert failure is not None or text == case.text
    assert len(fake.exchanges) == case.requests
    assert measured(case.provider, model) == pytest.approx(case.expected)
