"""What the LLM telemetry costs, per call and per streamed chunk, beside the same work without it, as Markdown.

    python -m bench.bench_llm

CPU time; work with and without telemetry takes turns. Exits 1 where a call costs more than 1 % of one that takes 50 ms,
or a chunk a microsecond or more, or where the noise leaves that open.
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
from bench.timing import difference, ratio

ROUNDS = 21
CALLS = 500
CHUNKS = 5_000
SDK_CHUNKS = 500
CALL_SECONDS = 0.01 * 0.05  # 1 % of a call that takes 50 ms
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


async def seconds(work: Work, times: int) -> float:
    """Of one of the `times` things that `work` does, by the CPU's clock."""
    begun = time.process_time()
    await work()
    return (time.process_time() - begun) / times


async def compare(without: Work, with_: Work, times: int) -> tuple[list[float], list[float]]:
    """Seconds of every round, without and with telemetry."""
    await without()
    await with_()
    gc.collect()
    gc.freeze()
    rounds = [(await seconds(without, times), await seconds(with_, times)) for _ in range(ROUNDS)]
    return [bare for bare, _ in rounds], [measured for _, measured in rounds]


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
    rows = []
    bare, measured = await compare(bare_calls, measured_calls, CALLS)
    cost = difference(measured, bare)
    rows.append(("a call, at most 1 % of one that takes 50 ms: 500 us", cost.show(1e-6), cost.at_most(CALL_SECONDS)))
    for shape, chunk in SHAPES.items():
        for kind, (without, with_) in streams(chunk).items():
            bare, measured = await compare(without, with_, CHUNKS)
            cost = difference(measured, bare)
            what = f"a streamed chunk, at most 1 us: {shape}, {kind}"
            rows.append((what, cost.show(1e-6), cost.at_most(CHUNK_SECONDS)))
    bare, measured = await compare(*sdk_stream(), SDK_CHUNKS)
    print(
        "Microseconds of CPU time added: the median over the rounds and, in brackets, the 95 % interval of that median."
    )
    share = ratio(measured, bare).text(3)
    print(f"A chunk that the OpenAI SDK reads from memory takes {share} times what it takes without telemetry.\n")
    print("| target | measured | |\n|---|---:|---|")
    print("\n".join(f"| {what} | {value} | {verdict} |" for what, value, verdict in rows))
    return all(verdict == "met" for *_, verdict in rows)


def main() -> int:
    return 0 if asyncio.run(run()) else 1


if __name__ == "__main__":
    sys.exit(main())
