"""One application of bench_http on uvicorn, on a free port, printed.

    python -m bench.serve PEER COMBINATIONS WORKERS [SERVING]

With WORKERS, PROMETHEUS_MULTIPROC_DIR must name an empty folder; see bench.scrape. SERVING processes of them answer
requests, one by default.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import uvicorn

from bench.peers import application
from bench.scrape import copy_files, fill


def prepare(peer: str, combinations: int, workers: int) -> uvicorn.Server:
    app = application(peer, 20)
    engine = "Sightline" if peer == "Sightline" else "prometheus_client"
    if combinations:
        fill(engine, combinations)
    if workers:
        copy_files(engine, workers)
    return uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error", loop="uvloop", http="httptools"))


def main() -> None:
    peer, combinations, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    serving = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    listener = socket.create_server(("127.0.0.1", 0))
    if serving == 1:
        server = prepare(peer, combinations, workers)
        print(listener.getsockname()[1], flush=True)
        server.run([listener])
        return
    children: list[int] = []

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    for _ in range(serving):
        ready, write = os.pipe()
        child = os.fork()
        if child == 0:
            server = prepare(peer, combinations, 0)  # each writes a file of its own
            os.write(write, b".")
            server.run([listener])
            os._exit(0)
        os.close(write)
        if not os.read(ready, 1):
            stop()
            raise RuntimeError("a worker does not start")
        os.close(ready)
        children.append(child)
    signal.signal(signal.SIGTERM, stop)
    print(listener.getsockname()[1], flush=True)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
