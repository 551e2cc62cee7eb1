"""What one request costs in instructions, counted by valgrind; in CPU time where valgrind is missing.

Run by bench_http, under valgrind or not: `python -m bench.instructions JOBS`, where JOBS is JSON: a list of
[peer, routes, several workers, requests]. Each job is a forked process of its own, so that starting Python is counted
in each alike, and the difference between N and 2N requests is what N requests cost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from typing import Any

import fastapi  # noqa: F401 - once, before the processes divide

from bench.peers import application

WARM_UP = 50


async def run(peer: str, routes: int, requests: int) -> float:
    """CPU seconds of a request."""
    app = application(peer, routes)
    path = f"/route{routes - 1}/7"
    raw_path = path.encode()
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    async def request() -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": raw_path,
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"accept", b"*/*")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
        }
        await app(scope, receive, send)
        await asyncio.sleep(0)  # as a server does: what waits for the event loop gets its turn

    for _ in range(WARM_UP):
        await request()
    gc.collect()
    gc.freeze()
    began = time.process_time()
    for _ in range(requests):
        await request()
    if statuses != {200}:
        raise RuntimeError(f"{peer} answered {statuses}")
    return (time.process_time() - began) / requests


def child(peer: str, routes: int, workers: bool, requests: int) -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            if workers:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            seconds = asyncio.run(run(peer, routes, requests))
    except Exception:
        traceback.print_exc()
        return 1
    print(f"seconds {os.getpid()} {seconds}", flush=True)
    return 0


def main() -> int:
    for peer, routes, workers, requests in json.loads(sys.argv[1]):
        pid = os.fork()
        if pid == 0:
            os._exit(child(peer, routes, workers, requests))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(["done", pid, status]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
