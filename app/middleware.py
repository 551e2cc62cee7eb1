"""Pure ASGI middlewares: request id and access log, security headers. Limits are in limits.py."""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

access_logger = logging.getLogger("app.access")

REQUEST_ID_HEADER = "X-Request-ID"
# As in nginx: the client disconnected before it got a response. Not imported from the telemetry, which would make the
# process that starts the workers one of them: logging needs this module there.
CLIENT_GONE = 499
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_request_id: ContextVar[str] = ContextVar("request_id", default="-")

# Probes and scrapes come every few seconds: logged only when they fail.
_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


def request_id() -> str:
    """The id of the request being served; "-" outside of one."""
    return _request_id.get()


class RequestLogMiddleware:
    """Gives every request an id (a well-formed X-Request-ID is kept) and logs one line when it ends.

    The line has the path without its query string, which may contain secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        this_id = given if _WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
        _request_id.set(this_id)
        status = 0
        size = 0
        complete = False
        start = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status, size, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = this_id
            await send(message)
            if message["type"] == "http.response.body":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            status = status or HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            status = status or CLIENT_GONE
            quiet = scope["path"] in _QUIET_PATHS and status < HTTPStatus.INTERNAL_SERVER_ERROR
            access_logger.log(
                logging.DEBUG if quiet else logging.INFO,
                "%s %s %d %dB %.1fms%s",
                scope["method"],
                # As received: percent-encoded, so that it cannot forge log lines.
                scope["raw_path"].decode("ascii", "backslashreplace")[:200],
                status,
                size,
                (time.perf_counter() - start) * 1000,
                "" if complete else " (incomplete)",
            )


class SecurityHeadersMiddleware:
    """Security headers of an API: its responses must not be framed, sniffed or cached."""

    HEADERS = (
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.HEADERS:
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)
