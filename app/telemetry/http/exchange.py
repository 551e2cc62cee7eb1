# SPDX-License-Identifier: Apache-2.0
"""One request and its response: observes the messages between server and application, and counts the request."""

import os
from bisect import bisect_left
from collections.abc import Awaitable
from time import perf_counter

from starlette.types import Message, Receive, Scope, Send

from ..storage import locked, storage
from .failures import answered_outside, client_left, failed
from .metrics import CLIENT_GONE
from .series import Series

NOT_STARTED: Message = {"status": 0}  # of a response


class Exchange:
    """One request. The object itself is the `receive` that the application gets, and its send() is the `send`."""

    __slots__ = (
        "gone",
        "head",
        "open",
        "received",
        "scope",
        "sent",
        "series",
        "server_receive",
        "server_send",
        "started",
    )

    series: Series
    scope: Scope
    server_receive: Receive
    server_send: Send
    open: float  # perf_counter() at the start of the request; 0 once it is counted
    gone: bool  # whether the client has left
    head: Message  # the message that started the response, NOT_STARTED before
    started: float  # perf_counter() at the start of the response
    received: int  # bytes of the request's body
    sent: int  # bytes of the response's body

    async def __call__(self) -> Message:
        message = await self.server_receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body") or b"")
        elif self.open:
            self.gone = not self._complete()
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # No coroutine around the server's. Counted just before the last bytes are sent: a client that has the whole
        # response may scrape another worker, or kill this one, before the next line of Python runs here.
        kind = message["type"]
        if kind == "http.response.start":
            self.started = perf_counter()
            self.head = message
        elif kind == "http.response.body":
            try:  # noqa: SIM105 - suppress() would cost more than the rest of this method
                self.sent += len(message["body"])
            except (KeyError, TypeError):  # no body: the same as an empty one
                pass
            if self.open and not ("more_body" in message and message["more_body"]):  # noqa: RUF019 - half of get()
                self.finish()
        elif kind == "http.response.pathsend":
            self.sent += self._size_of(message["path"])
            if self.open:
                self.finish()
        return self.server_send(message)

    def _size_of(self, path: str) -> int:
        """The size of a file that the server sends itself. It was just opened, so this does not wait for the disk."""
        try:
            return os.stat(path).st_size
        except OSError:
            self.series.warn("the size of a file that the server sends is unknown")
            return 0

    def _complete(self) -> bool:
        """Whether the whole announced body was sent: a client that closes its connection then has not left early."""
        head = self.head
        if head is NOT_STARTED:
            return False
        if self.scope["method"] == "HEAD" or head.get("status") in (204, 304):
            return True
        for name, value in head.get("headers", ()):
            if name.lower() == b"content-length":
                return bool(value.isdigit() and self.sent >= int(value))
        return False

    def fail(self, error: BaseException) -> None:
        """Count a request that raised: because the client left, because an outer layer answers it, or as a 500."""
        left = self.gone or client_left(error, self.server_send)
        status = None if left else answered_outside(error, self.server_receive, self.server_send)
        name = None if left else failed(error)
        try:
            if name is not None and (status is None or status >= 500):
                self.series.count_exception(self.series.row(self.scope, 500), name)
        except Exception:
            self.series.warn("an exception was not counted", exc_info=True)
        if self.open:
            if not self._complete():
                self.gone, self.head = left, {"status": status or 500}
            elif status:
                self.head = {"status": status}
            self.finish()

    def cut(self) -> None:
        """Count a request whose application returned early: the client left, or the server sends a 500 or closes."""
        if not self._complete():
            self.head = {"status": 500}
        self.finish()

    @locked
    def finish(self) -> None:
        """Count it. Never raises."""
        now = perf_counter()
        began, self.open = self.open, 0.0
        status = CLIENT_GONE if self.gone else self.head["status"]
        series = self.series
        try:
            scope = self.scope
            method = scope["method"]
            try:
                row = series.found[id(scope["route"])][method]
            except KeyError:
                row = series.row(scope, status)
            cells = storage.cells
            try:
                cell = row.statuses[status]
            except KeyError:
                cell = series.status_cell(row, status)
                cells = storage.cells  # replaced if there was no space for it
            cells[cell] += 1.0

            start_sum, start, duration_sum, duration, received, received_sum, sent, sent_sum = row.cells
            started, bounds = self.started, series.bounds
            bucket = 0  # most requests are so short that comparing with the first bound is enough
            if started or status != CLIENT_GONE:
                elapsed = (started or now) - began
                if elapsed > bounds[0]:
                    bucket = bisect_left(bounds, elapsed)
                    start += bucket
                cells[start_sum] += elapsed
                cells[start] += 1.0
            elapsed = now - began
            if elapsed > bounds[bucket]:
                bucket = bisect_left(bounds, elapsed)
            if bucket:
                duration += bucket
            cells[duration_sum] += elapsed
            cells[duration] += 1.0

            if self.received:
                cells[received_sum] += self.received
            cells[received] += 1.0
            if self.sent and method != "HEAD":  # whose body the server does not send
                cells[sent_sum] += self.sent
            cells[sent] += 1.0

            if status >= 500:
                series.count_failure(row, (started or now) - began, elapsed)
            if series.exemplar is not None:
                series.keep_exemplar(scope, cell, duration, elapsed, now)
        except Exception:
            series.warn("a request was not counted", exc_info=True)
        # Last: a worker that no longer sees the request in progress must see it counted.
        try:
            del series.waiting[self]
        except KeyError:
            storage.cells[series.shown.pop(self)] -= 1.0
