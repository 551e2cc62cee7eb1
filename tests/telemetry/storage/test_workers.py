"""Several workers: exact totals over workers that are killed and replaced, and no gauge of the dead."""

import json
import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.running import wait_until
from tests.telemetry.serving import GUNICORN, UVICORN, Served, serve, value

WORKERS = 3
SERVERS = {
    # One that is killed when its supervisor has just asked whether it lives is replaced after this time; one that takes
    # longer to start on a busy machine is killed for that. The same as in app/server.py.
    "uvicorn": (*UVICORN, "--timeout-worker-healthcheck", "60", "--workers", str(WORKERS)),
    "gunicorn": (*GUNICORN, "--workers", str(WORKERS)),
    "gunicorn, preloaded": (*GUNICORN, "--workers", str(WORKERS), "--preload"),
    "gunicorn, uvicorn's workers": (*GUNICORN, "--workers", str(WORKERS), "-k", "uvicorn.workers.UvicornWorker"),
}


def work(server: Served, times: int) -> tuple[set[int], Path]:
    """Do work in whichever workers answer; their pids, and the folder they share."""
    pids, folder = set(), ""
    for _ in range(times):
        _, pid, folder = json.loads(server.get("/work/x")[0])
        pids.add(pid)
    return pids, Path(folder)


def live(server: Served) -> float:
    """What is asked for over and over, so only this line is read."""
    found = re.search(r"^live (\S+)$", server.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_totals_over_killed_workers(command: tuple[str, ...]) -> None:
    """Counters stay exact over kills with SIGKILL, what the dead had in progress vanishes, no file is added."""
    with serve(*command, "tests.telemetry.working:app") as server:
        wait_until(lambda: live(server) == WORKERS)
        sent, (_, folder) = 20, work(server, 20)
        assert folder.stat().st_mode & 0o777 == 0o700
        files = sorted(path.name for path in folder.iterdir())
        assert files == ["schema", "service", *(f"worker-{number}" for number in range(WORKERS))]
        held = server.connect()
        held.sendall(b"GET /held HTTP/1.1\r\nhost: localhost\r\n\r\n")
        wait_until(lambda: value(server.samples(), "http_requests_in_progress", endpoint="/held") == 1)
        for _ in range(2):
            for pid in pids(folder):
                os.kill(pid, signal.SIGKILL)
                wait_until(partial(replaced, server, folder, pid))
                work(server, 5)
                sent += 5
                samples = server.samples()
                assert value(samples, "work_total", kind="x") == sent
                assert value(samples, "http_requests_total", endpoint="/work/{kind}") == sent
                assert value(samples, "times_seconds_count") == sent
        held.close()
        assert value(samples, "http_requests_in_progress") == 0
        assert sorted(path.name for path in folder.iterdir()) == files
        assert {dict(labels)["worker"] for name, labels in samples if name == "process_open_fds"} == {"0", "1", "2"}
        assert value(samples, "last") > 0  # a dead worker may have set it last


def replaced(server: Served, folder: Path, pid: int) -> bool:
    return pid not in pids(folder) and live(server) == WORKERS


def pids(folder: Path) -> set[int]:
    """Of the workers, from the headers of their files."""
    return {_number_at_start(path) for path in folder.glob("worker-*")}


def _number_at_start(path: Path) -> int:
    with open(path, "rb", buffering=0) as file:
        return int.from_bytes(file.read(8), "little")
