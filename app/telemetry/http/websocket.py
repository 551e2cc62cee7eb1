# SPDX-License-Identifier: Apache-2.0
"""One WebSocket: the outcome of its handshake, how long it was open, and its close code."""

from bisect import bisect_left
from contextlib import suppress
from time import perf_counter

from anyio import move_on_after
from starlette.types import Message, Receive, Scope, Send

from ..storage import locked, storage
from .failures import after_close, cancelled, failed
from .metrics import (
    CLOSED,
    CONNECTION_BUCKETS,
    CONNECTION_DURATION,
    CONNECTIONS,
    CONNECTIONS_OPEN,
    OVERFLOW,
    WEBSOCKET,
)
from .series import Row, Series

# https://www.iana.org/assignments/websocket/websocket.xhtml: these individually, registered and private ones as a class
_STANDARD_CODES = frozenset(range(1000, 1016))
_NO_CODE, _NO_FRAME, _INTERNAL_ERROR, _SERVICE_RESTART = 1005, 1006, 1011, 1012
_CODE_SECONDS = 0.5  # to wait for the close code of a client that has left: servers have it by then, or never


class SocketSeries:
    """Where the WebSockets of one middleware are counted: one set of cells for each endpoint, bounded like requests."""

    def __init__(self, series: Series, const_labels: tuple[str, ...]) -> None:
        self.series = series
        self._families = {
            "connections": CONNECTIONS.family(("endpoint", "outcome", *const_labels)),
            "open": CONNECTIONS_OPEN.family(("endpoint", *const_labels), mode="livesum"),
            "closed": CLOSED.family(("endpoint", "code", *const_labels)),
            "duration": CONNECTION_DURATION.family(("endpoint", *const_labels), CONNECTION_BUCKETS),
        }
        self._cells: dict[tuple[str, ...], int] = {}
        self._rows: dict[str, Row] = {}

    @locked
    def add(self, kind: str, endpoint: str, value: str = "", amount: float = 1.0) -> None:
        cell = self._cell(kind, endpoint, value)
        storage.cells[cell] += amount

    @locked
    def observe(self, endpoint: str, seconds: float) -> None:
        first = self._cell("duration", endpoint, "")
        storage.cells[first] += seconds
        storage.cells[first + 1 + bisect_left(CONNECTION_BUCKETS, seconds)] += 1.0

    def count_exception(self, endpoint: str, name: str) -> None:
        row = self._rows.setdefault(endpoint, Row((WEBSOCKET, endpoint, *self.series.constant)))
        self.series.count_exception(row, name)

    def _cell(self, kind: str, endpoint: str, value: str) -> int:
        cell = self._cells.get((kind, endpoint, value))
        if cell is None:
            if endpoint != OVERFLOW and not self.series.room():
                return self._cell(kind, OVERFLOW, value)
            labels = (endpoint, value, *self.series.constant) if value else (endpoint, *self.series.constant)
            cell = self._cells[kind, endpoint, value] = self.series.cell(self._families[kind], labels)
        return cell


class Connection:
    """One WebSocket. The object itself is the `receive` that the application gets, and its send() is the `send`."""

    def __init__(self, sockets: SocketSeries, scope: Scope, receive: Receive, send: Send) -> None:
        self._sockets = sockets
        self._scope = scope
        self._receive = receive
        self._send = send
        self._endpoint = ""
        self._accepted = 0.0  # perf_counter() when it was accepted; 0 before
        self._ended = False
        self._gone = False  # whether sending has failed because the client left

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.end(message.get("code") or _NO_CODE, "abandoned")
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.close":
            self.end(message.get("code") or 1000, "refused")
        elif kind == "websocket.http.response.start":
            self.end(_NO_CODE, "refused")
        try:
            await self._send(message)
        except OSError:  # the ASGI specification's error for a disconnected client
            self._gone = True
            raise
        if kind == "websocket.accept":
            self._handshake("accepted")

    async def leave(self) -> None:
        """The application has returned. If sending has failed because the client left, wait for its close code."""
        if self._gone and not self._ended:
            try:
                with suppress(Exception), move_on_after(_CODE_SECONDS):
                    while not self._ended:  # with the messages that the application has not received
                        await self()
            finally:
                self.end(_NO_FRAME, "abandoned")

    def _handshake(self, outcome: str) -> None:
        try:
            self._endpoint, _ = self._sockets.series.endpoint(self._scope, 0)
            self._sockets.add("connections", self._endpoint, outcome)
            if outcome == "accepted":
                self._sockets.add("open", self._endpoint)
                self._accepted = perf_counter()
            else:
                self._ended = True
        except Exception:
            self._sockets.series.warn("a WebSocket was not counted", exc_info=True)

    def end(self, code: int, outcome: str) -> None:
        """The connection ends with this code or, if it was not accepted, the handshake with this outcome."""
        if self._ended:
            return
        if not self._accepted:
            self._handshake(outcome)
            return
        self._ended = True
        try:
            self._sockets.add("closed", self._endpoint, _code(code))
            self._sockets.observe(self._endpoint, perf_counter() - self._accepted)
            self._sockets.add("open", self._endpoint, "", -1.0)
        except Exception:
            self._sockets.series.warn("a WebSocket was not counted", exc_info=True)

    def fail(self, error: BaseException) -> None:
        """The handler raised: the server closes with 1011, or with 1012 if the handler was cancelled at shutdown."""
        ended = self._ended
        self.end(_SERVICE_RESTART if cancelled(error) else _INTERNAL_ERROR, "failed")
        name = failed(error)
        if name is not None and not (ended and after_close(error)):
            self._sockets.count_exception(self._endpoint, name)


def _code(code: int) -> str:
    if code in _STANDARD_CODES:
        return str(code)
    return f"{code // 1000}xxx" if code // 1000 in (3, 4) else "other"
