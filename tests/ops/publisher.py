"""A server with releases as upstream's has them, and archives like theirs."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ops.releases import Release

NAME = "prometheus-9.9.9.linux-amd64.tar.gz"


def archive(folder: str = "prometheus-9.9.9.linux-amd64", padding: int = 0) -> bytes:
    """An archive like upstream's; `padding` random bytes make it larger."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {
            "prometheus": b"#!/bin/sh\necho 9.9.9\n",
            "promtool": b"#!/bin/sh\n",
            "padding": os.urandom(padding),
        }.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def release(content: bytes, address: str = "http://127.0.0.1:1") -> Release:
    programs = {"prometheus": "prometheus", "promtool": "promtool"}
    return Release("prometheus", "9.9.9", NAME, address, hashlib.sha256(content).hexdigest(), programs)


class Publisher:
    """A web server whose answers the test decides: `answer(handler)` writes a response to GET."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: handler.send_error(404)
        self.downloads = 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                publisher.downloads += 1
                publisher.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, content: bytes, *, only: int | None = None, pause: float = 0.0) -> None:
        """Answer with `content`, its first `only` bytes, or all of it after a pause in the middle."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2 if pause else only])
            handler.wfile.flush()
            if pause:
                time.sleep(pause)
                handler.wfile.write(content[len(content) // 2 :])

        self.answer = answer
