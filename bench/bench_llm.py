"""What the LLM telemetry costs, per call and per streamed chunk, beside the same work without it in the same run.

    python -m bench.bench_llm

Fails if a call costs more than 1 % of one that takes 50 ms, or a chunk more than a microsecond. Rounds with and without
telemetry alternate, and the fastest of each counts: other work on the machine only ever adds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2
import openai
from anthropic.types import RawContentBlockDeltaEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from app.telemetry.llm import Price, configure, track_call

ROUNDS = 7
CALLS = 500
CHUNKS = 10_000
SDK_CHUNKS = 1_000
CALL_SECONDS = 0.05
CALL_SHARE = 0.01
CHUNK_SECONDS = 1e-6

PAIR = ("openai", "model")
PROMPT = "What is the meaning of this?"
USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
DELTA = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
COMMON = {"id": "1", "created": 1, "model": "model"}
CHUNK = {**COMMON, "object": "chat.completion.chunk", "choices": [DELTA], "usage": None}
COMPLETION = ChatCompletion.model_validate(
    {
        **COMMON,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
SHAPES: dict[str, Any] = {
    "OpenAI object": ChatCompletionChunk.model_validate(CHUNK),
    "Anthropic object": RawContentBlockDeltaEvent.model_validate(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
    ),
    "dict": CHUNK,
}

Work = Callable[[], Awaitable[None]]


async def fastest(work: Work, times: int) -> float:
    """Seconds of one of the `times` things that `work` does, by the CPU's clock."""
    gc.collect()
    begun = time.process_time()
    await work()
    return (time.process_time() - begun) / times


async def compare(without: Work, with_: Work, times: int) -> tuple[float, float]:
    rounds = [(await fastest(without, times), await fastest(with_, times)) for _ in range(ROUNDS)]
    return min(bare for bare, _ in rounds), min(measured for _, measured in rounds)


async def answer() -> ChatCompletion:
    return COMPLETION


async def bare_calls() -> None:
    for _ in range(CALLS):
        await answer()


async def measured_calls() -> None:
    for _ in range(CALLS):
        async with track_call(*PAIR, prompt=PROMPT) as call:
            call.record(await answer())


class Source:
    """A stream that costs as little as a stream can."""

    def __init__(self, chunk: Any) -> None:
        self._chunk = chunk
        self._left = CHUNKS

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self._left -= 1
        if self._left < 0:
            raise StopAsyncIteration
        return self._chunk

    def __iter__(self) -> Iterator[Any]:
        for _ in range(CHUNKS):
            yield self._chunk


def streams(chunk: Any) -> dict[str, tuple[Work, Work]]:
    async def bare() -> None:
        async for _ in Source(chunk):
            pass

    async def measured() -> None:
        async with track_call(*PAIR) as call:
            async for _ in call.stream(Source(chunk)):
                pass

    async def bare_sync() -> None:
        for _ in iter(Source(chunk)):
            pass

    async def measured_sync() -> None:
        with track_call(*PAIR) as call:
            for _ in call.stream(iter(Source(chunk))):
                pass

    return {"async": (bare, measured), "sync": (bare_sync, measured_sync)}


def sdk_stream() -> tuple[Work, Work]:
    """The real SDK reading server-sent events from memory: what a chunk costs anyway, without any network."""
    last = {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    data = [CHUNK] * SDK_CHUNKS + [last, {**CHUNK, "choices": [], "usage": USAGE}]
    body = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in data) + b"data: [DONE]\n\n"

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    client = openai.AsyncOpenAI(
        api_key="none", http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(reply)), max_retries=0
    )

    async def request() -> Any:
        return await client.chat.completions.create(model="model", messages=[], stream=True)

    async def bare() -> None:
        async for _ in await request():
            pass

    async def measured() -> None:
        async with track_call(*PAIR) as call:
            async for _ in call.stream(await request()):
                pass

    return bare, measured


async def run() -> bool:
    configure({PAIR[0]: [PAIR[1]]}, {PAIR: Price(1, 10)})
    bare, measured = await compare(bare_calls, measured_calls, CALLS)
    cost = measured - bare
    good = cost <= CALL_SHARE * CALL_SECONDS
    print(f"a call costs {cost * 1e6:.1f} us more: {cost / CALL_SECONDS:.3%} of one that takes 50 ms (at most 1 %)")
    for shape, chunk in SHAPES.items():
        for kind, (without, with_) in streams(chunk).items():
            bare, measured = await compare(without, with_, CHUNKS)
            cost = measured - bare
            good &= cost < CHUNK_SECONDS
            print(f"a chunk, {shape}, {kind}: {cost * 1e9:.0f} ns more (less than 1000)")
    bare, measured = await compare(*sdk_stream(), SDK_CHUNKS)
    print(f"a chunk through the OpenAI SDK: {measured / bare:.3f} times its {bare * 1e6:.1f} us")
    return good


def main() -> int:
    if asyncio.run(run()):
        return 0
    print("more than the budget", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
