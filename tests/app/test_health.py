"""Readiness, where probes overlap."""

from __future__ import annotations

import asyncio
from typing import Any

from app.api.health import DatabaseProbe


def test_a_probe_that_begins_as_another_one_ends_leaves_it_its_answer() -> None:
    """The next query may begin after the first one's end and before those who wait for the first one see it."""

    async def probed_twice() -> list[bool]:
        later: list[asyncio.Task[bool]] = []

        class Session:
            async def __aenter__(self) -> Session:
                return self

            async def __aexit__(self, *_: object) -> None:
                if not later:
                    later.append(asyncio.create_task(probe.answers()))  # runs once this query has ended

            async def scalar(self, *_: object, **__: object) -> int:
                await asyncio.sleep(0)
                return 1

        sessions: Any = Session
        probe = DatabaseProbe(sessions)
        return [await probe.answers(), await later[0]]

    assert asyncio.run(probed_twice()) == [True, True]
