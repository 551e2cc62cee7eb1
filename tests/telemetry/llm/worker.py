"""One of several workers of a service, for test_workers.py: does what its standard input says, line by line.

`stream N`: N streams to their end. `hang N`: N streams whose provider falls silent. `prompt N`: how long prompts are
from now on. `scrape`: the metrics, and an empty line.
"""

from __future__ import annotations

import asyncio
import sys

from app.llm import LLMService, Message
from app.llm.openai_compatible import OpenAIProvider
from app.telemetry import llm as telemetry
from app.telemetry.exposition import render
from tests.telemetry.llm.measured import PRICE


async def main(openai_url: str, model: str) -> None:
    telemetry.configure({"openai": [model]}, {("openai", model): PRICE})
    service = LLMService(OpenAIProvider("k", openai_url, timeout=300), model)
    hanging = set()
    prompt = "Hello there"

    async def stream(what: str) -> None:
        async for _ in service.stream([Message("system", what), Message("user", prompt)]):
            pass

    while line := await asyncio.to_thread(sys.stdin.readline):
        command, _, number = line.strip().partition(" ")
        if command == "stream":
            await asyncio.gather(*(stream("answer") for _ in range(int(number))))
        elif command == "hang":
            hanging |= {asyncio.create_task(stream("hang")) for _ in range(int(number))}
        elif command == "prompt":
            prompt = "x" * int(number)
        elif command == "scrape":
            sys.stdout.write(render().decode())
        print(flush=True)


asyncio.run(main(*sys.argv[1:]))
