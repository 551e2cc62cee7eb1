"""Limits on what a client may send: size, time, structure and rate, checked before anything is parsed.

Any request costs at most 50 ms of CPU time and 16 MiB (tests/app/test_cost.py). A size limit alone does not guarantee
that: 930 kB of JSON may be 100,000 keys, each of them an error to report, or 300,000 empty lists of 56 bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.proxies import TrustedProxies

MAX_URL_BYTES = 8 * 1024  # path and query; the limit of most servers and proxies
MAX_HEADERS = 100
DEFAULT_BODY_BYTES = 16 * 1024
# Of all bodies that a worker has at once, beyond DEFAULT_BODY_BYTES of each: its clients could hold 1 GiB otherwise.
HELD_BODY_BYTES = 64 * 1024 * 1024
# The size of the largest valid body of a route, with each character as "\uXXXX\uXXXX"; other routes: the default.
BODY_BYTES = {"/users": 4 * 1024, "/items": 128 * 1024}

# Of JSON, outside of its strings. The API's own bodies have up to 4 keys and no list.
MAX_JSON_CONTAINERS = 32  # which bounds the depth as well
MAX_JSON_VALUES = 64
MAX_JSON_STRUCTURE_BYTES = 4 * 1024  # punctuation, numbers and blanks


def json_excess(body: bytes) -> str | None:
    """Which limit a JSON body exceeds, None if none. Linear, in C: at most 2 ms for 1 MiB."""
    if b"\x00" in body or not _is_utf8(body):
        # RFC 8259 allows nothing else. json.loads would read UTF-16, UTF-32 and surrogates, 1 MiB of these in 60 ms.
        return "The body is not UTF-8"
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') > 2 * 2 * MAX_JSON_VALUES:
        return f"The body has more than {MAX_JSON_VALUES} keys"
    outside = b"".join(body.split(b'"')[::2])
    if len(outside) > MAX_JSON_STRUCTURE_BYTES:
        return f"The body has more than {MAX_JSON_STRUCTURE_BYTES} bytes outside of strings"
    if max(outside.count(b":"), outside.count(b",") + 1) > MAX_JSON_VALUES:
        return f"The body has more than {MAX_JSON_VALUES} keys or values"
    if outside.count(b"{") + outside.count(b"[") > MAX_JSON_CONTAINERS:
        return f"The body has more than {MAX_JSON_CONTAINERS} objects and lists"
    return None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


class RequestLimitsMiddleware:
    """Rejects requests that are too large, too slow or too complex.

    414: path and query; 431: number of headers (the server limits their size); 413: the body, by route, before any of
    it is read where its length is declared; 408: a body that takes longer than `timeout` seconds; 422: JSON beyond
    the limits of structure; 503: a body that is not small while others take up HELD_BODY_BYTES.
    """

    def __init__(
        self, app: ASGIApp, timeout: float, body_bytes: Mapping[str, int], default_body_bytes: int = DEFAULT_BODY_BYTES
    ) -> None:
        self.app = app
        self.timeout = timeout
        self.body_bytes = body_bytes
        self.default_body_bytes = default_body_bytes
        self._max_held = max((HELD_BODY_BYTES, *body_bytes.values()))
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        first = "/" + scope["path"].lstrip("/").partition("/")[0]
        max_bytes = self.body_bytes.get(first, self.default_body_bytes)
        if refusal := self._refusal(scope, max_bytes):
            status, detail = refusal
            await JSONResponse({"detail": detail}, status, headers={"Connection": "close"})(scope, receive, send)
            return
        read = False
        held = 0  # until the request ends

        def hold(size: int) -> None:
            nonlocal held
            more = max(0, size - DEFAULT_BODY_BYTES) - held
            if self._held + more > self._max_held:
                raise HTTPException(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "Too many large bodies at once; try again later",
                    {"Connection": "close", "Retry-After": "1"},
                )
            held += more
            self._held += more

        async def limited_receive() -> Message:
            nonlocal read
            if read:  # now it only waits for the client to leave
                return await receive()
            message = await self._read(receive, max_bytes, hold)
            read = True
            return message

        try:
            await self.app(scope, limited_receive, send)
        finally:
            self._held -= held

    def _refusal(self, scope: Scope, max_bytes: int) -> tuple[HTTPStatus, str] | None:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL_BYTES:
            return HTTPStatus.REQUEST_URI_TOO_LONG, f"The URL is longer than {MAX_URL_BYTES} bytes"
        if len(scope["headers"]) > MAX_HEADERS:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request has more than {MAX_HEADERS} headers"
        declared = Headers(scope=scope).get("content-length", "0")
        # The server has refused a Content-Length that is not a number.
        if len(declared) > 18 or int(declared) > max_bytes:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(max_bytes)
        return None

    async def _read(self, receive: Receive, max_bytes: int, hold: Callable[[int], None]) -> Message:
        """The whole body in one message; `hold` is called with its size so far.

        Raises:
            HTTPException: it is too large, too slow or too complex, or too many others are being read.
        """
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > max_bytes:
                        raise HTTPException(
                            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(max_bytes), {"Connection": "close"}
                        )
                    hold(size)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The body did not arrive within {self.timeout:g} seconds",
                {"Connection": "close"},
            ) from None
        body = b"".join(pieces)
        if (excess := json_excess(body)) is not None:
            detail: Any = [{"loc": ["body"], "msg": excess, "type": "too_complex"}]
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        return {"type": "http.request", "body": body, "more_body": False}


def _too_large(max_bytes: int) -> str:
    return f"The body is larger than {max_bytes} bytes"


class SignUpLimitMiddleware:
    """At most `per_minute` sign-ups from one client, then 429: each creates a row, and needs no credentials.

    Counted per worker, in memory. A client is an IPv4 address or an IPv6 network of 64 bits; behind an untrusted proxy
    all clients count as one.
    """

    def __init__(self, app: ASGIApp, per_minute: int, proxies: str = "") -> None:
        self.app = app
        self._proxies = TrustedProxies(proxies)
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_sign_up = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/users"
        if not is_sign_up or self._limiter.hit(self._limit, _network(await self._proxies.client(scope))):
            await self.app(scope, receive, send)
            return
        response = JSONResponse(
            {"detail": f"More than {self._limit.amount} sign-ups within a minute"},
            HTTPStatus.TOO_MANY_REQUESTS,
            headers={"Retry-After": "60"},
        )
        await response(scope, receive, send)


def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
