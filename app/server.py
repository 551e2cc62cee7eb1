"""Serving with uvicorn: one process, or several workers under uvicorn's supervisor."""

from __future__ import annotations

import socket

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.logs import log_config
from app.settings import Settings


class ServeError(Exception):
    """The service could not start to serve; the message says why."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests that run finish (at most `app_shutdown_timeout` seconds).

    Raises ServeError.
    """
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        workers=settings.app_workers,
        log_config=log_config(settings.log_level, settings.log_format),
        access_log=False,  # app.middleware writes it, without query strings
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        limit_concurrency=settings.app_max_connections,
        timeout_graceful_shutdown=settings.app_shutdown_timeout,
    )
    listener = _listen(settings.app_host, settings.app_port)
    with listener:
        if settings.app_workers > 1:
            Multiprocess(config, sockets=[listener]).run()
            return
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if not server.started:
            raise ServeError("the application did not start; the log above says why")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror}. Change APP_HOST or APP_PORT.") from error
    listener.set_inheritable(True)
    return listener
