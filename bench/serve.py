"""One application of bench_http on uvicorn, on a free port, printed: `python -m bench.serve PEER COMBINATIONS WORKERS`.

With WORKERS, PROMETHEUS_MULTIPROC_DIR must name an empty folder; see bench.scrape.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

from bench.peers import application
from bench.scrape import copy_files, fill


def main() -> None:
    peer, combinations, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    app = application(peer, 20)
    engine = "Sightline" if peer == "Sightline" else "prometheus_client"
    if combinations:
        fill(engine, combinations)
    if workers:
        copy_files(engine, workers)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error", loop="uvloop", http="httptools"))
    server.run([listener])


if __name__ == "__main__":
    main()
