# SPDX-License-Identifier: Apache-2.0
"""GET /metrics: authorization, one rendering for concurrent scrapes, without blocking other requests."""

import hmac
import logging
import os
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import anyio
import anyio.lowlevel
import anyio.to_thread
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import gzip_accepted
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ..exposition import Piece, pieces

log = logging.getLogger("sightline_telemetry")

_SLICE = 0.002  # seconds that a scrape works before it yields to other requests
_MAX_SCRAPES = 16  # in the queue; further ones get a 503


def metrics_endpoint(
    *, registry: CollectorRegistry = REGISTRY, token_file: str | os.PathLike[str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of GET /metrics: `app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)`.

    Supports the text formats and OpenMetrics (Accept header), gzip, and `?name[]=` to select metrics. A scrape works in
    slices of two milliseconds, between which other requests are served. Custom collectors run in a thread, without an
    event loop. Concurrent scrapes share one rendering; more than 16 waiting ones get a 503.

    Args:
        registry: the metrics to expose.
        token_file: a file with a bearer token, which requests then need; otherwise they get a 401. It is read again
            when it changes. While it is missing or empty, requests get a 503.
    """
    token = None if token_file is None else _Token(Path(token_file))
    scraper = _Scraper(registry)

    async def metrics(request: Request) -> Response:
        if token is not None:
            refusal = token.refusal(request.headers.get("authorization", ""))
            if refusal is not None:
                return refusal
        return await scraper.scrape(
            request.headers.get("accept", ""),
            frozenset(request.query_params.getlist("name[]")),
            gzip_accepted(request.headers.get("accept-encoding", "")),
        )

    return metrics


class _Token:
    """The bearer token in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = b""

    def refusal(self, authorization: str) -> Response | None:
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen != self._seen:
                self._token, self._seen = self._path.read_bytes().strip(), seen
        except OSError as error:
            log.error("/metrics: cannot read the token file: %s", error)
            self._token, self._seen = b"", None
        if not self._token:
            return PlainTextResponse("The token file of /metrics is missing or empty.\n", status_code=503)
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() == "bearer" and same:
            return None
        return PlainTextResponse("A bearer token is required.\n", 401, {"www-authenticate": "Bearer"})


class _Scraper:
    """Renders one scrape at a time; a scrape that waited reuses a rendering that began after it arrived."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = anyio.Lock()
        self._thread: anyio.CapacityLimiter | None = None  # a separate one, so that handlers do not wait for it
        self._queue = 0
        self._last: tuple[tuple[str, frozenset[str], bool], float, Response] | None = None

    async def scrape(self, accept: str, names: frozenset[str], gzip: bool) -> Response:
        if self._queue >= _MAX_SCRAPES:
            return PlainTextResponse("Too many scrapes at once.\n", 503, {"retry-after": "1"})
        came = perf_counter()
        self._queue += 1
        try:
            async with self._lock:
                key = accept, names, gzip
                if self._last is None or self._last[0] != key or self._last[1] < came:
                    began = perf_counter()
                    self._last = key, began, await self._render(*key)
                return self._last[2]
        finally:
            self._queue -= 1
            if not self._queue:
                self._last = None  # no longer needed, and it may be large

    async def _render(self, accept: str, names: frozenset[str], gzip: bool) -> Response:
        if self._thread is None:
            self._thread = anyio.CapacityLimiter(1)  # here, as older versions of anyio need an event loop for it
        content_type, text = pieces(self._registry, accept, names)
        headers = {"content-type": content_type, "vary": "accept, accept-encoding", "cache-control": "no-store"}
        deflate = None
        if gzip:
            headers["content-encoding"] = "gzip"
            deflate = zlib.compressobj(1, wbits=31)

        def packed(piece: Piece) -> bytes:
            data = (piece if isinstance(piece, str) else piece()).encode()
            return data if deflate is None else deflate.compress(data)

        body = []
        paused = perf_counter()
        for piece in text:
            if isinstance(piece, str):
                body.append(packed(piece))
            else:
                body.append(await anyio.to_thread.run_sync(packed, piece, limiter=self._thread))
            if perf_counter() - paused > _SLICE:
                await anyio.lowlevel.checkpoint()
                paused = perf_counter()
        if deflate is not None:
            body.append(deflate.flush())
        return _PiecesResponse([part for part in body if part], headers)


class _PiecesResponse(Response):
    """A body in pieces, of known length."""

    def __init__(self, body: list[bytes], headers: dict[str, str]) -> None:
        self._pieces = body
        super().__init__(headers={**headers, "content-length": str(sum(map(len, body)))})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        paused = perf_counter()
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if perf_counter() - paused > _SLICE:
                await anyio.lowlevel.checkpoint()
                paused = perf_counter()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
