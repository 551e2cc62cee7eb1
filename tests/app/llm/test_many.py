"""A thousand streams at once, a third of them left on the way: exact totals, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass

import anyio
import psutil
import pytest

from app.llm import LLMService, Message
from app.telemetry.llm import Call
from tests.telemetry.llm.fake_provider import Body, FakeProvider, Reply, anthropic_stream, openai_stream, until
from tests.telemetry.llm.measured import PRICE, measured
from tests.telemetry.llm.sdks import anthropic_messages, openai_compatible

STREAMS = 1000
CONNECTING = 50  # at a time: a thousand connects at once would be a test of the machine


@dataclass
class Plan:
    """What the provider does for one stream, and what its reader does."""

    provider: str
    pieces: int
    given: int
    made: int
    leave_after: int | None  # pieces; the provider then waits, so that the stream cannot end by itself
    how: str

    def reply(self, _: Body) -> Reply:
        pieces = tuple("x" for _ in range(self.pieces))
        if self.provider == "openai":
            usage = {
                "prompt_tokens": self.given,
                "completion_tokens": self.made,
                "total_tokens": self.given + self.made,
            }
            stall = None if self.leave_after is None else 1 + self.leave_after
            return openai_stream(pieces, usage=usage, stall_after=stall)({"stream_options": {"include_usage": True}})
        stall = None if self.leave_after is None else 3 + self.leave_after
        return anthropic_stream(
            pieces, usage={"input_tokens": self.given, "output_tokens": self.made}, stall_after=stall
        )


def plans() -> list[Plan]:
    dice = random.Random(4)
    made = []
    for number in range(STREAMS):
        pieces = dice.randint(2, 12)
        made.append(
            Plan(
                provider=("openai", "anthropic")[number % 2],
                pieces=pieces,
                given=dice.randint(1, 5000),
                made=dice.randint(2, 500),
                leave_after=dice.randint(1, pieces) if number % 3 == 0 else None,
                how=dice.choice(("break", "cancel", "cancel scope")),
            )
        )
    return made


def sockets() -> int:
    return len(psutil.Process().net_connections("tcp"))


def calls() -> int:
    """Those that are kept: also by what other tests of this process have left."""
    gc.collect()
    return sum(isinstance(thing, Call) for thing in gc.get_objects())


async def test_a_thousand_streams(fake: FakeProvider, model: str) -> None:
    script = plans()
    fake.replies = [lambda body: script[int(body["messages"][0]["content"])].reply(body)]
    tasks_before, sockets_before, calls_before = len(asyncio.all_tasks()), sockets(), calls()
    services = {
        "openai": LLMService(openai_compatible.OpenAIProvider("k", fake.openai_url, timeout=300), model),
        "anthropic": LLMService(anthropic_messages.AnthropicProvider("k", fake.anthropic_url, timeout=300), model),
    }
    connecting = asyncio.Semaphore(CONNECTING)
    everyone, on = asyncio.Barrier(STREAMS + 1), asyncio.Event()
    ends: Counter[str] = Counter()

    async def read(number: int, plan: Plan) -> None:
        scope = anyio.CancelScope()
        seen = 0
        with scope:
            async with aclosing(services[plan.provider].stream([Message("user", str(number))])) as stream:
                async with connecting:
                    await anext(stream)
                await everyone.wait()
                await on.wait()
                seen = 1
                while seen != plan.leave_after:
                    try:
                        await anext(stream)
                    except StopAsyncIteration:
                        ends["whole"] += 1
                        return
                    seen += 1
                ends[plan.how] += 1
                if plan.how == "break":
                    return
                if plan.how == "cancel scope":
                    scope.cancel()
                else:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                await anext(stream)

    tasks = [asyncio.create_task(read(number, plan)) for number, plan in enumerate(script)]
    async with asyncio.timeout(300):
        await everyone.wait()
    at_once = [measured(provider, model)["llm_requests_in_progress"] for provider in services]
    assert at_once == [STREAMS / 2, STREAMS / 2]
    on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert Counter(type(result) for result in results if result is not None) == {asyncio.CancelledError: ends["cancel"]}
    await until(lambda: fake.open_exchanges == 0)

    # Every stream that was left had its request closed, every other one was sent whole: the server says so.
    assert len(fake.exchanges) == STREAMS
    left = [plan for plan in script if plan.leave_after is not None]
    assert sum(exchange.client_left for exchange in fake.exchanges) == len(left)
    assert sum(exchange.complete for exchange in fake.exchanges) == ends["whole"] == STREAMS - len(left)
    assert min(ends.values()) > 50

    for provider in services:
        mine = [plan for plan in script if plan.provider == provider]
        whole = [plan for plan in mine if plan.leave_after is None]
        gone = [plan for plan in mine if plan.leave_after is not None]
        # Anthropic reports the input and one token of output when it starts, OpenAI nothing before the end.
        counted = whole + (gone if provider == "anthropic" else [])
        given = sum(plan.given for plan in counted)
        made = sum(plan.made for plan in whole) + (len(gone) if provider == "anthropic" else 0)
        prompts = [len(str(number)) for number, plan in enumerate(script) if plan.provider == provider]
        expected = {
            "llm_requests_total{operation=chat,outcome=success}": len(whole),
            "llm_requests_total{operation=chat,outcome=cancelled}": len(gone),
            "llm_request_duration_seconds_count{operation=chat,outcome=success}": len(whole),
            "llm_request_duration_seconds_count{operation=chat,outcome=cancelled}": len(gone),
            "llm_tokens_total{type=input}": given,
            "llm_tokens_total{type=output}": made,
            "llm_request_tokens_sum{type=input}": given,
            "llm_request_tokens_sum{type=output}": made,
            "llm_request_tokens_count{type=input}": len(counted),
            "llm_request_tokens_count{type=output}": len(counted),
            "llm_time_to_first_token_seconds_count": len(mine),
            "llm_time_per_output_token_seconds_count": len(whole),
            "llm_prompt_length_characters_count": len(mine),
            "llm_prompt_length_characters_sum": sum(prompts),
            "llm_prompt_length_characters_max": max(prompts),
            "llm_finish_reasons_total{reason=stop}": len(whole),
            "llm_usage_missing_total{reason=cancelled}": len(gone),
            "llm_cost_usd_total": (given * PRICE.input + made * PRICE.output) / 1e6,
        }
        assert measured(provider, model) == pytest.approx(expected, rel=1e-9)

    # Nothing stays behind: tasks, sockets, calls
    for service in services.values():
        await service.aclose()
    del tasks, results
    await until(lambda: len(asyncio.all_tasks()) == tasks_before)
    await until(lambda: sockets() <= sockets_before)
    assert calls() <= calls_before
