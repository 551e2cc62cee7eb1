"""The service with the official SDKs against real protocols: after each case, every metric to the unit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from app.llm import LLMError, LLMService, Message
from tests.telemetry.llm.fake_provider import (
    ANTHROPIC_USAGE,
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
    FIRST_TOKEN,
    STREAMED,
    Numbers,
    call,
    failed,
    finish,
    measured,
    missing,
    retried,
    seconds,
    tokens,
)
from tests.telemetry.llm.sdks import anthropic_messages, openai_compatible

PROMPT = [Message("system", "Be brief."), Message("user", "Hello there")]
KEY = "sk-secret-key"
# 20 fresh and 100 cached input, 30 output of which 10 reasoning; per million: 1, 0.1 and 10 dollars
OPENAI_TOKENS = tokens(120, 30, (20 * 1 + 100 * 0.1 + 30 * 10) / 1e6, cache_read=100, reasoning=10)
# 20 fresh, 80 read, 40 written of which 10 for an hour, 30 output; per million: 1, 0.1, 1.25, 2 and 10 dollars
ANTHROPIC_USD = (20 * 1 + 80 * 0.1 + 30 * 1.25 + 10 * 2 + 30 * 10) / 1e6
ANTHROPIC_TOKENS = tokens(140, 30, ANTHROPIC_USD, cache_read=80, cache_write=40)
# What a stream that breaks off has reported: the input, and one token of output
ANTHROPIC_START = tokens(140, 1, ANTHROPIC_USD - 29 * 10 / 1e6, cache_read=80, cache_write=40)
RATE_LIMIT_HEADERS = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984"}
RATE_LIMIT_LEFT = {
    "llm_rate_limit_remaining{resource=requests}": 59.0,
    "llm_rate_limit_remaining{resource=tokens}": 149984.0,
}


@asynccontextmanager
async def service(fake: FakeProvider, provider: str, model: str, **settings: Any) -> AsyncIterator[LLMService]:
    if provider == "openai":
        made: Any = openai_compatible.OpenAIProvider(KEY, fake.openai_url, **settings)
    else:
        made = anthropic_messages.AnthropicProvider(KEY, fake.anthropic_url, **settings)
    llm = LLMService(made, model)
    try:
        yield llm
    finally:
        await llm.aclose()


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


SUCCESS, ERROR, CANCELLED, INCOMPLETE = (call(each) for each in ("success", "error", "cancelled", "incomplete"))
ONCE = {"max_retries": 0}
IMMEDIATELY = {"retry_after_ms": "1"}

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


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_slow_first_token(provider: str, fake: FakeProvider, model: str) -> None:
    stream = openai_stream if provider == "openai" else anthropic_stream
    fake.replies = [stream(first_delay=0.5)]
    async with service(fake, provider, model) as llm:
        async for _ in llm.stream(PROMPT):
            pass
    first = seconds("llm_time_to_first_token_seconds", provider, model)
    almost = 0.5 - 0.001  # timers of an event loop may end a part of a millisecond early
    assert almost <= first <= seconds("llm_request_duration_seconds", provider, model)


async def test_role_chunk_is_not_the_first_token(fake: FakeProvider, model: str) -> None:
    """OpenAI announces the role before there is any output: it must not count as a token."""
    fake.replies = [openai_stream(stall_after=1)]
    async with service(fake, "openai", model, timeout=5, max_retries=0) as llm:
        with pytest.raises(LLMError, match="timeout"):
            async for _ in llm.stream(PROMPT):
                pass
    assert fake.exchanges[0].events_sent == 1
    assert "llm_time_to_first_token_seconds_count" not in measured("openai", model)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(240):
        while not true():  # noqa: ASYNC110  what is waited for is on another thread
            await asyncio.sleep(0.01)


async def _leave(llm: LLMService, how: str, chunks: int) -> None:
    """Read some chunks of a stream, then leave it."""
    reached = asyncio.Event()
    scope = anyio.CancelScope()  # as Starlette ends a streaming response: cancels every await until it is left

    async def read() -> None:
        seen = 0
        with scope:
            async with aclosing(llm.stream(PROMPT)) as stream:
                async for _ in stream:
                    seen += 1
                    if seen == chunks:
                        reached.set()
                        if how == "break":
                            break
                        if how == "raise":
                            raise KeyError("the reader's own trouble")

    task = asyncio.create_task(read())
    await asyncio.wait_for(reached.wait(), 240)
    await asyncio.sleep(0.05)  # so that it waits for the provider
    if how == "cancel":
        task.cancel()
    if how == "cancel scope":
        scope.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("how", ["break", "cancel", "cancel scope", "raise"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_client_leaves(how: str, provider: str, fake: FakeProvider, model: str) -> None:
    """Accounted as cancelled, with the tokens that the provider had reported by then; and its request is closed."""
    pieces = ("Hello", " to", " you")
    fake.replies = [
        openai_stream(pieces, stall_after=3) if provider == "openai" else anthropic_stream(pieces, stall_after=5)
    ]
    async with service(fake, provider, model) as llm:
        await _leave(llm, how, 2)
        reported = ANTHROPIC_START if provider == "anthropic" else {}
        assert measured(provider, model) == pytest.approx(CANCELLED | FIRST_TOKEN | reported | missing("cancelled"))
        await until(lambda: fake.open_exchanges == 0)
    assert [exchange.client_left for exchange in fake.exchanges] == [True]


async def test_client_leaves_before_the_answer(fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_whole(delay=60)]
    async with service(fake, "openai", model) as llm:
        task = asyncio.create_task(llm.complete(PROMPT))
        await until(lambda: len(fake.exchanges) == 1)
        assert measured("openai", model)["llm_requests_in_progress"] == 1
        task.cancel()
        await asyncio.wait({task})
    assert measured("openai", model) == CANCELLED | missing("cancelled")


async def test_in_progress_while_streaming(fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_stream(stall_after=2)]
    async with service(fake, "openai", model) as llm:
        stream = llm.stream(PROMPT)
        await anext(stream)
        assert measured("openai", model)["llm_requests_in_progress"] == 1
        await stream.aclose()
    assert "llm_requests_in_progress" not in measured("openai", model)


async def test_models_outside_the_list_are_other(fake: FakeProvider, model: str) -> None:
    """A thousand models asked for make no series of their own; without a price they count as unpriced."""
    before = measured("openai", "other").get("llm_unpriced_requests_total", 0)
    fake.replies = [openai_whole()]
    async with service(fake, "openai", model) as llm:
        for number in range(20):
            await llm.complete(PROMPT, f"{model}-unheard-of-{number}")
    after = measured("openai", "other")
    assert after["llm_unpriced_requests_total"] == before + 20
    assert "llm_cost_usd_total" not in after
    assert measured("openai", model) == {}
    assert measured("openai", f"{model}-unheard-of-1") == {}
    assert [exchange.body["model"] for exchange in fake.exchanges] == [f"{model}-unheard-of-{n}" for n in range(20)]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_nothing_private_leaves(
    provider: str, fake: FakeProvider, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Prompt, answer and key show in no log, error or label, even at DEBUG and when the provider echoes them."""
    caplog.set_level("DEBUG")
    echo = f"Incorrect API key provided: {KEY}; you said Hello there"
    error = openai_error(401, "invalid_api_key", echo) if provider == "openai" else anthropic_error(401, "x", echo)
    whole = openai_whole() if provider == "openai" else anthropic_whole()
    fake.replies = [error, whole]
    async with service(fake, provider, model) as llm:
        with pytest.raises(LLMError) as failure:
            await llm.complete(PROMPT)
        await llm.complete(PROMPT)
    seen = caplog.text + str(failure.value) + repr(measured(provider, model))
    assert caplog.records
    for private in (KEY, "Hello there", "Be brief", "Hello to you"):
        assert private not in seen
