"""Client addresses behind proxies: X-Forwarded-For counts only if a trusted proxy has sent it."""

from __future__ import annotations

import asyncio
import socket
import time

from starlette.datastructures import Headers
from starlette.types import Scope

TTL = 5.0  # seconds that resolved addresses are cached: a restarted proxy may have another one


class TrustedProxies:
    """Trusted proxies, by name or address. uvicorn's own `forwarded_allow_ips` supports addresses only.

    The last proxy appends the address of its client to X-Forwarded-For; everything before it is only claimed by the
    client.
    """

    def __init__(self, names: str) -> None:
        self._names = [name.strip() for name in names.split(",") if name.strip()]
        self._addresses: set[str] = set()
        self._expires = 0.0

    async def client(self, scope: Scope) -> str:
        """The client's address; empty if the server has none."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        if not forwarded or not self._names or peer not in await self._resolved():
            return peer
        return forwarded[-1].rpartition(",")[2].strip() or peer

    async def _resolved(self) -> set[str]:
        if time.monotonic() >= self._expires:
            self._expires = time.monotonic() + TTL
            loop = asyncio.get_running_loop()
            questions = (loop.getaddrinfo(name, None, type=socket.SOCK_STREAM) for name in self._names)
            answers = await asyncio.gather(*questions, return_exceptions=True)
            found = [answer for answer in answers if not isinstance(answer, BaseException)]
            self._addresses = {str(entry[4][0]) for answer in found for entry in answer}
        return self._addresses
