"""What a peer adds to one request, in instructions counted by valgrind; in CPU time where valgrind is missing.

Run by bench_http, under valgrind or not: `python -m bench.instructions JSON`, where JSON says what to measure and
whether valgrind is there: [[[peer, routes, several workers, requests, windows], ...], true]. For each of them a forked
process asks the same application in turn without and with the peer, so that everything else is the same: what two
neighbouring windows of requests differ by is the peer's. The garbage collector rests meanwhile, and under valgrind,
which makes everything fifty times slower, the clock advances by a tenth of a millisecond whenever it is read
(which costs as much as a look at the real one): requests stay in the buckets that they fall into without valgrind.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM_UP = 30


def mark() -> None:
    """callgrind writes its counts and starts again whenever this function is called."""
    os.getloadavg()


def callgrind(folder: str) -> list[str]:
    """What stands before the command of a program to be counted, which calls mark(); empty without valgrind."""
    valgrind = shutil.which("valgrind")
    tool = ["--tool=callgrind", "--dump-before=getloadavg", f"--callgrind-out-file={folder}/%p"]
    return [valgrind, *tool] if valgrind else []


def between_marks(folder: str, pid: int | str = "*") -> list[int]:
    """The instructions between the first and the second mark of a process, the third and the fourth, and so on."""
    dumps = sorted(Path(folder).glob(f"{pid}.*"), key=lambda path: int(path.suffix[1:]))
    texts = (path.read_text(errors="replace") for path in dumps)
    return [int(total) for text in texts for total in re.findall(r"(?m)^totals: (\d+)", text)][1::2]


async def measure(peer: str, routes: int, requests: int, windows: int) -> list[float]:
    """CPU seconds of the windows, in turn without and with the peer."""
    from bench.peers import OPTIONS, PEERS, plain  # once the clock is replaced

    app = plain(peer, routes)
    bare_app = app if peer not in OPTIONS else plain("bare", routes)
    bare = bare_app.build_middleware_stack()
    counted: Any = PEERS[peer](app)
    stack = app.build_middleware_stack() if counted is app else bare
    path = f"/route{routes - 1}/7"
    raw_path = path.encode()
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    async def window(with_peer: bool, count: int) -> float:
        # FastAPI keeps its middlewares in a stack: the same application is asked with either.
        target = counted if with_peer else bare_app
        (app if with_peer else bare_app).middleware_stack = stack if with_peer else bare
        gc.collect()
        mark()
        began = time.process_time()
        for _ in range(count):
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
            await target(scope, receive, send)
            await asyncio.sleep(0)  # as a server does: what waits for the event loop gets its turn
        seconds = time.process_time() - began
        mark()
        return seconds

    gc.disable()
    for with_peer in (False, True):
        await window(with_peer, WARM_UP)
    results = [await window(with_peer, requests) for _ in range(windows) for with_peer in (False, True)]
    if statuses != {200}:
        raise RuntimeError(f"{peer} answered {statuses}")
    return results


def child(number: int, job: tuple[str, int, bool, int, int]) -> int:
    peer, routes, workers, requests, windows = job
    try:
        with tempfile.TemporaryDirectory() as folder:
            if workers:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            seconds = asyncio.run(measure(peer, routes, requests, windows))
    except Exception as error:
        print(f"{peer} does not run: {error!r}", file=sys.stderr, flush=True)
        return 1
    print(json.dumps([number, os.getpid(), seconds]), flush=True)
    return 0


def main() -> None:
    jobs, valgrind = json.loads(sys.argv[1])
    if valgrind:
        time.perf_counter = itertools.count(1.0, 1e-4).__next__
    import fastapi  # noqa: F401 - once for all

    for number, job in enumerate(jobs):
        pid = os.fork()
        if pid == 0:
            os._exit(child(number, job))
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
