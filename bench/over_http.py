"""Servers of the peers over real HTTP, and clients that send requests over keep-alive connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 1200  # requests of a round
CONNECTIONS = 8


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it has the answer."""

    def __init__(self, count: int, path: str, done: asyncio.Future[None]) -> None:
        self.left = count
        self.request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        self.done = done
        self.worst = 0.0
        self.until: asyncio.Event | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data and not data.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(data[:200].decode()))
        if not data.endswith(b"}"):  # the rest of the response is to come
            return
        self.worst = max(self.worst, time.perf_counter() - self.asked)
        self.left -= 1
        if self.left > 0 and not (self.until and self.until.is_set()):
            self.ask()
        else:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)


async def connect(port: int, count: int) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: Client(count, "/route19/7", loop.create_future()), "127.0.0.1", port
    )
    return client


async def batch(port: int) -> float:
    """Requests a second."""
    began = time.perf_counter()
    clients = [await connect(port, BATCH // CONNECTIONS) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(client.done for client in clients))
    return BATCH / (time.perf_counter() - began)


def serve(
    peer: str, folder: str = "", combinations: int = 0, workers: int = 0, serving: int = 1
) -> tuple[subprocess.Popen[str], int]:
    """A server of this peer and its port."""
    environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    if workers:
        environment["PROMETHEUS_MULTIPROC_DIR"] = folder
    command = [sys.executable, "-m", "bench.serve", peer, str(combinations), str(workers), str(serving)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{peer} does not start")
    return process, int(line)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """That a server (of one thread) has used so far."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
