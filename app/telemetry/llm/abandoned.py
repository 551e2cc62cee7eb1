# SPDX-License-Identifier: Apache-2.0
"""Calls that are still open when their request is over.

A synchronous generator inside StreamingResponse is not closed when the client leaves, only by the garbage collector.
Until then the provider keeps streaming, and llm_requests_in_progress counts the call.
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

    Closes synchronous streams that were started during a request and are still open at its end, and counts their calls
    as cancelled. Asynchronous ones need `contextlib.aclosing` around the generator instead.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, then close the streams that it left open."""
        calls: list[Call] = []
        token = calls_of_request.set(calls)
        try:
            await self.app(scope, receive, send)
        finally:
            calls_of_request.reset(token)
            for call in calls:
                if call.outcome is None:
                    call.abandon()
