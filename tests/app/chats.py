"""What tests of POST /chat share: its events, a model that follows a script, a database that hangs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from app.llm import Chunk, Message, SimulatedBehaviour
from tests.running import suspended
from tests.servers import Postgres

FAST = SimulatedBehaviour(first_token_seconds=0, tokens_per_second=100_000, output_tokens=20, spread=0)


def events(lines: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """The server-sent events of a response, which has to consist of nothing else."""
    found = []
    for block in "\n".join(lines).removesuffix("\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


class Script:
    """A provider that sends the given pieces and then fails, if an error is given; remembers what it was asked."""

    def __init__(self, pieces: list[str], error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.asked: list[list[Message]] = []
        self.ended = False

    async def stream(self, messages: list[Message], model: str | None = None) -> AsyncIterator[Chunk]:
        self.asked.append(messages)
        try:
            for piece in self.pieces:
                await asyncio.sleep(0)
                yield Chunk(piece)
            if self.error:
                raise self.error
            yield Chunk("", None, "stop")
        finally:
            self.ended = True


@contextmanager
def hanging(postgres: Postgres, database: str) -> Iterator[None]:
    """The database answers nothing, and closes no connection."""
    with suspended(postgres.running):
        yield
