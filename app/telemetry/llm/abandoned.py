# SPDX-License-Identifier: Apache-2.0
"""Calls that a request leaves behind.

A synchronous generator inside StreamingResponse is not closed when the client leaves: it waits for the garbage
collector, and until then the provider streams on and llm_requests_in_progress counts the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .call import Call, calls_of_request

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AbandonedCallsMiddleware:
    """ASGI middleware: `app.add_middleware(AbandonedCallsMiddleware)`.

    Synchronous streams that were begun during a request and are still open when it is over are closed, and their calls
    count as cancelled. Asynchronous ones need `contextlib.aclosing` around the generator instead.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, then close what it left open."""
        calls: list[Call] = []
        token = calls_of_request.set(calls)
        try:
            await self.app(scope, receive, send)
        finally:
            calls_of_request.reset(token)
            for call in calls:
                if call.outcome is None:
                    call.abandon()
