"""A master that replaces its workers fifty times, by turns with SIGKILL and with SIGTERM, and says what it reads.

Run by test_restarts: the folder is named by PROMETHEUS_MULTIPROC_DIR. After each restart one line of JSON: what was
counted so far, what a scrape says of it, and what the scrape had to read.
"""

import json
import os
import signal
from pathlib import Path

from prometheus_client import Counter, Gauge

from app.telemetry import exposition
from app.telemetry.storage import storage

WORKERS = 3
RESTARTS = 50
COUNTED = Counter("counted", "By the workers.", ["kind"])
SEEN = Counter("seen", "By worker number one alone.", ["kind"])
LIVING = Gauge("living", "One per living worker.", multiprocess_mode="livesum")


def start(number: int) -> int:
    """Fork a worker; it has counted when this returns, and waits for its end."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        COUNTED.labels("work").inc(2)
        LIVING.set(1)
        if number == 1:
            SEEN.labels("once").inc()
        os.write(write, b".")
        while True:
            signal.pause()
    os.close(write)
    assert os.read(read, 1) == b"."
    os.close(read)
    return pid


def scrape_of_a_newcomer() -> str:
    """What a worker says that has counted nothing itself."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, exposition.render(names=["counted_total", "seen_total", "living"]))
        os._exit(0)
    os.close(write)
    text = b""
    while data := os.read(read, 65536):
        text += data
    os.close(read)
    os.waitpid(pid, 0)
    return text.decode()


def main() -> None:
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    workers = [start(number) for number in range(WORKERS)]
    started = WORKERS
    for restart in range(RESTARTS):
        slot = restart % WORKERS
        os.kill(workers[slot], signal.SIGKILL if restart % 2 else signal.SIGTERM)
        os.waitpid(workers[slot], 0)
        workers[slot] = start(slot)
        started += 1
        state = {
            "counted": started * 2,
            "text": scrape_of_a_newcomer(),
            "files": sorted(path.name for path in folder.iterdir()),
            "read": sum(memory.used() for _, memory, _ in storage.peers()),
        }
        print(json.dumps(state), flush=True)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
