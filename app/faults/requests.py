"""Faults of API requests: slow, failing, raising."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import HTTPException
from pydantic import Field

from app.faults.base import Fault, Share

PathPrefix = Annotated[
    str, Field(pattern="^/", max_length=200, description="Only requests whose path starts with this.")
]


class InjectedError(Exception):
    """The unhandled exception that the fault `exceptions` raises."""


class RequestFault(Fault):
    """Base of the faults that affect API requests (not probes, /metrics or /faults)."""

    share: Share = 1.0
    path_prefix: PathPrefix = "/"

    async def hit(self) -> None:
        """Called for an affected request before its handler runs."""
        raise NotImplementedError


class Slow(RequestFault):
    """Requests are delayed before they are handled."""

    name = "slow"
    delay: float = Field(2, gt=0, le=30, description="Seconds.")

    async def hit(self) -> None:
        await asyncio.sleep(self.delay)


class Errors(RequestFault):
    """A share of the requests is answered with a server error."""

    name = "errors"
    share: Share = 0.2
    status: Literal[500, 502, 503, 504] = 500

    async def hit(self) -> None:
        raise HTTPException(self.status, "An injected fault")


class Exceptions(RequestFault):
    """A share of the requests ends in an unhandled exception."""

    name = "exceptions"
    share: Share = 0.2

    async def hit(self) -> None:
        raise InjectedError("an injected fault")
