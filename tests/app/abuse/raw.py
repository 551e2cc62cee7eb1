"""Requests as bytes on a connection, as no client library sends them, and what the service counts of them."""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx2

from tests.running import Running

TIMES = 10 if "FUZZ_SECONDS" in os.environ else 1
Tried = Callable[[str, Counter[int | str]], None]


def endpoints(client: httpx2.Client) -> set[str]:
    text = client.get("/metrics").text
    return set(re.findall(r'^http_requests_total{.*?endpoint="(.*?)"', text, re.MULTILINE))


def in_progress(client: httpx2.Client) -> dict[str, float]:
    text = client.get("/metrics").text
    found = re.findall(r'^http_requests_in_progress{.*?endpoint="(.*?)".*?} (\S+)', text, re.MULTILINE)
    return {endpoint: float(value) for endpoint, value in found if float(value)}


@contextmanager
def connection(service: Running, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as raw:
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(60)
        raw.connect(("127.0.0.1", service.port))
        yield raw


def send(service: Running, request: bytes) -> int | str:
    """Send bytes as they are; the status code of the answer, or "closed" for none."""
    with connection(service) as raw:
        with suppress(ConnectionError):  # the answer may be there before all was sent
            raw.sendall(request)
        return status(raw)


def status(raw: socket.socket) -> int | str:
    """The status code of the next answer, or "closed"."""
    head = b""
    while b"\r\n" not in head:
        try:
            piece = raw.recv(4096)
        except ConnectionError:
            piece = b""
        if not piece:
            return "closed"
        head += piece
    return int(head.split(b" ", 2)[1])
