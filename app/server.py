"""Serving with uvicorn: one process, or several workers under uvicorn's supervisor."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess

from app.logs import log_config
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger("app.server")

WORKER_TIMEOUT = 60  # seconds without a response until a worker is replaced; imports take long on a busy machine
# Of a connection, in the kernel, where it would grow to megabytes. After a moment in which the worker was busy, up to
# 256 KiB of each connection would be read at once, before a request can detect the excess (limits.HELD_BODY_BYTES).
RECEIVE_BUFFER_BYTES = 64 * 1024


class ServeError(Exception):
    """The server could not start; the message gives the reason."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with the limits that it lacks: slow clients, headers, body chunks, pipelining.

    A connection is closed if complete request headers have not arrived within `timeout` seconds after its start or the
    end of the last response, or if the client has not read a response for that long. If unread responses take up
    MAX_UNREAD_BYTES, the one that has been unread the longest is closed earlier. That counts write buffers; per
    connection with pipelined requests, one more response may wait for space in them.
    """

    MAX_HEADER_BYTES = 64 * 1024
    MAX_BODY_PIECES = 16 * 1024  # chunks; each is a call: 1 MiB in chunks of a byte would take 0.2 s of CPU time
    MAX_UNREAD_BYTES = 64 * 1024 * 1024  # per worker; otherwise 1,000 clients could leave 2 MiB each
    MAX_PIPELINED = 64  # waiting requests; a read of 256 KiB could contain 15,000, which take 30 MiB as objects
    MAX_LATE_BYTES = 1024 * 1024  # of a body whose request has been answered: it is discarded, and could be endless

    _unread: ClassVar[dict[BoundedHttpProtocol, None]] = {}  # connections whose client does not read, longest first

    def __init__(self, *args: Any, timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeout = timeout
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._served: RequestResponseCycle | None = None
        self._in_headers = True
        self._header_bytes = 0
        self._body_pieces = 0
        self._late_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        self._unread.pop(self, None)
        # uvicorn notifies the last request received; with pipelining, an earlier one may be the one being served.
        if self._served is not None:
            self._served.disconnected = True
            self._served.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers and not self.transport.is_closing():
            self._header_bytes += len(data)
            if self._header_bytes > self.MAX_HEADER_BYTES:
                self.send_400_response("The request headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        self._body_pieces = 0
        self._late_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > 2 * self.MAX_HEADER_BYTES:  # trailers of a chunked body are counted here, too
            raise ValueError("headers too large")  # the parser's caller responds with 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None
        if len(self.pipeline) >= self.MAX_PIPELINED:
            self.transport.abort()  # first: a 400 would be read as a part of the response that is being sent
            raise ValueError("too many pipelined requests")  # stops the parser
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_pieces += 1
        if self._body_pieces > self.MAX_BODY_PIECES:
            raise ValueError("too many body chunks")  # as above: 400
        if self.cycle.response_complete:
            self._late_bytes += len(body)
            if self._late_bytes > self.MAX_LATE_BYTES:
                self.transport.abort()
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn resumed reading, and would read more than it serves; a request that reads its body resumes once more.
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()
        if self.cycle.response_complete:  # else a pipelined request is being served
            self._expect_request()

    def timeout_keep_alive_handler(self) -> None:
        # uvicorn's few seconds after a response: a client that is still reading it is not idle.
        if not self.transport.get_write_buffer_size():
            super().timeout_keep_alive_handler()

    def _end_waiting(self) -> None:
        # close() would wait for a client that does not read the rest.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._timeout, self.transport.abort)
        self._unread[self] = None
        while sum(each.transport.get_write_buffer_size() for each in self._unread) > self.MAX_UNREAD_BYTES:
            longest = next(iter(self._unread))
            del self._unread[longest]
            longest.transport.abort()

    def resume_writing(self) -> None:
        self._unread.pop(self, None)
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _expect_request(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
        self._request_timer = self.loop.call_later(self._timeout, self._end_waiting)

    def _cancel_timers(self) -> None:
        for timer in (self._request_timer, self._write_timer):
            if timer is not None:
                timer.cancel()


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which would wait as long for a worker that has ended as for one that is busy."""

    def keep_subprocess_alive(self) -> None:
        for worker in self.processes:
            worker.child_conn.close()  # the worker has its own copy: its end now closes the pipe, which ends the wait
        super().keep_subprocess_alive()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish (at most `app_shutdown_timeout` seconds).

    Raises:
        ServeError: the port is not available, or no worker started.
    """
    config = uvicorn.Config(
        "app.server:app_or_exit",
        factory=True,
        loop="uvloop",
        http=functools.partial(BoundedHttpProtocol, timeout=settings.app_request_timeout),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        workers=settings.app_workers,
        log_config=log_config(settings.log_level, settings.log_format),
        access_log=False,  # app.middleware logs requests, without query strings
        server_header=False,
        proxy_headers=False,  # app.proxies, which also supports names
        limit_concurrency=settings.app_max_connections,
        timeout_graceful_shutdown=settings.app_shutdown_timeout,
        timeout_worker_healthcheck=WORKER_TIMEOUT,
    )
    with _listen(settings.app_host, settings.app_port) as listener:
        host, port = listener.getsockname()[:2]
        logger.info("Serving on http://%s:%d with %d worker(s)", host, port, settings.app_workers)
        if settings.app_workers > 1:
            supervisor = Supervisor(config, sockets=[listener])
            supervisor.run()
            started = all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)
        else:
            server = uvicorn.Server(config)
            server.run(sockets=[listener])
            started = server.started
    if not started:
        raise ServeError("the application did not start; see the log lines above")


def app_or_exit() -> FastAPI:
    """Application factory of each worker. A setting that fails only here ends all workers with one line."""
    if supervisor := multiprocessing.parent_process():
        # A killed supervisor leaves its workers running, and they would keep the port occupied.
        threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    gc.disable()  # modules and routes are never freed: the garbage collector need not scan them, now or later
    # Imported here: the supervisor must not register in the metrics as a worker.
    from app.main import create_app

    try:
        return create_app()
    except SettingsError as error:
        print(f"Cannot start: {error}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)
    finally:
        gc.freeze()
        gc.enable()


def _end_with(supervisor: BaseProcess) -> None:
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # gaierror has its own codes; the socket module adds to the text of other errors.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ServeError(f"cannot listen on {host}:{port}: {reason}. Change APP_HOST or APP_PORT.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)  # its connections inherit it
    listener.set_inheritable(True)
    return listener
