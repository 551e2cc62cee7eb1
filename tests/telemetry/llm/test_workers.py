"""Four worker processes: any of them reports the numbers of all, also after one was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from tests.running import wait_until
from tests.telemetry.llm.fake_provider import Body, FakeProvider, Reply, openai_stream
from tests.telemetry.llm.measured import OPENAI_TOKENS, STREAMED, Numbers, call, finish, measured

MODEL = "model-of-workers"
ROOT = Path(__file__).parents[3]


class Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._input: IO[str] = process.stdin
        self._output: IO[str] = process.stdout

    def do(self, command: str) -> str:
        """Say it, wait until it is done; what it printed."""
        self._input.write(f"{command}\n")
        self._input.flush()
        lines: list[str] = []
        while (line := self._output.readline()) != "\n":
            assert line, "the worker has died"
            lines.append(line)
        return "".join(lines)

    def numbers(self) -> Numbers:
        return measured("openai", MODEL, self.do("scrape"))


@pytest.fixture
def start(fake: FakeProvider, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)

    def reply(body: Body) -> Reply:
        return openai_stream(stall_after=2 if body["messages"][0]["content"] == "hang" else None)(body)

    fake.replies = [reply]
    with ExitStack() as stack:

        def starter() -> Worker:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.telemetry.llm.worker", fake.openai_url, MODEL],
                cwd=ROOT,
                env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Worker(process)

        yield starter


def times(number: int, numbers: Numbers) -> Numbers:
    return {name: number * value for name, value in numbers.items()}


def expected(streams: int, prompts: int, longest: int, hanging: int = 0, lost: int = 0) -> Numbers:
    """Of `streams` that ended, with `prompts` characters in all; some are under way, some ended with their worker."""
    numbers = times(streams, call("success") | OPENAI_TOKENS | STREAMED | finish("stop")) | {
        "llm_prompt_length_characters_count": float(streams + hanging + lost),
        "llm_prompt_length_characters_sum": float(prompts),
        "llm_prompt_length_characters_max": float(longest),
    }
    return numbers | ({"llm_requests_in_progress": float(hanging)} if hanging else {})


def test_workers(start: Callable[[], Worker], fake: FakeProvider) -> None:
    workers = [start() for _ in range(4)]
    for number, worker in enumerate(workers):
        worker.do(f"stream {10 + number}")
    streams, prompts = 46, 46 * 11
    for worker in workers:
        assert worker.numbers() == pytest.approx(expected(streams, prompts, 11))

    # One has the longest prompt and three calls under way when it is killed.
    victim, *others = workers
    victim.do("prompt 5000")
    victim.do("stream 1")
    victim.do("hang 3")
    streams, prompts = streams + 1, prompts + 4 * 5000
    wait_until(lambda: fake.open_exchanges == 3)
    for worker in workers:
        assert worker.numbers() == pytest.approx(expected(streams, prompts, 5000, hanging=3))
    victim.process.send_signal(signal.SIGKILL)
    victim.process.wait()
    wait_until(lambda: fake.open_exchanges == 0)

    # What it counted stands, what it had under way is gone. Its calls that never ended count in no outcome.
    for worker in others:
        assert worker.numbers() == pytest.approx(expected(streams, prompts, 5000, lost=3))

    # Its successor counts on. When it has started, the longest prompt may be more than a minute ago: it has a new one.
    successor = start()
    successor.do("prompt 6000")
    successor.do("stream 20")
    streams, prompts = streams + 20, prompts + 20 * 6000
    for worker in (*others, successor):
        assert worker.numbers() == pytest.approx(expected(streams, prompts, 6000, lost=3))


def test_rate_limit_left_is_what_was_told_last(start: Callable[[], Worker], fake: FakeProvider) -> None:
    left = iter(range(9, 0, -1))
    fake.replies = [lambda body: openai_stream(headers={"x-ratelimit-remaining-requests": str(next(left))})(body)]
    workers = [start(), start()]
    for remaining, worker in zip((9, 8, 7), (*workers, workers[0]), strict=True):
        worker.do("stream 1")
        assert [each.numbers()["llm_rate_limit_remaining{resource=requests}"] for each in workers] == [
            remaining,
            remaining,
        ]
