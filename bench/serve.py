"""One application of bench_http on uvicorn, on a free port, printed: `python -m bench.serve PEER COMBINATIONS`."""

from __future__ import annotations

import socket
import sys

import uvicorn

from bench.peers import application
from bench.scrape import fill


def main() -> None:
    peer, combinations = sys.argv[1], int(sys.argv[2])
    app = application(peer, 20)
    if combinations:
        fill("Sightline" if peer == "Sightline" else "prometheus_client", combinations)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error", loop="uvloop", http="httptools"))
    server.run([listener])


if __name__ == "__main__":
    main()
