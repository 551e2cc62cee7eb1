"""A server that runs while it is measured."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ops import servers


@contextmanager
def started(server: servers.Server) -> Iterator[int]:
    """Start it and wait until it answers; yields its process id. It ends in its own time, when it has written all."""
    environment = {**servers.plain_environment(), **server.environment}
    process = subprocess.Popen(server.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.probe():
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait()
