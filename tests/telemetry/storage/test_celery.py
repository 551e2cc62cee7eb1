"""Celery's prefork pool, with a broker in a folder: its processes and the main process count for one service."""

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import wait_until
from tests.telemetry.environments import environment
from tests.telemetry.serving import ROOT, Samples, parse, value

TASKS = """
import os, signal, threading
from pathlib import Path
from wsgiref.simple_server import make_server

from app.telemetry import exposition
from celery import Celery
from celery.signals import worker_ready
from prometheus_client import Counter, Gauge, Histogram

DONE = Counter("done", "d", ["kind"])
TIMES = Histogram("times_seconds", "t", buckets=(1, 2))
EVENTS = Counter("events", "Of the main process.")
LIVE = Gauge("live", "One per process of the pool.", multiprocess_mode="livesum")
EVENTS.inc(2)  # before the pool is forked
queue, outbox = (str(Path(name).absolute()) for name in ("queue", os.environ.get("OUTBOX", "queue")))
for folder in (queue, outbox):
    os.makedirs(folder, exist_ok=True)
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": queue, "data_folder_out": outbox, "control_folder": queue, "polling_interval": 0.02
}
app.conf.worker_max_tasks_per_child = int(os.environ.get("MAX_TASKS", 0)) or None
app.conf.worker_prefetch_multiplier = 1


@app.task(name="work")
def work(kind):
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    TIMES.observe(1.5)
    LIVE.set(1)
    DONE.labels(kind).inc()
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


def answer(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [exposition.render()]


@worker_ready.connect
def serve(**_):
    EVENTS.inc()
    server = make_server("127.0.0.1", 0, answer)
    print(f"running on http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
"""
SEND = "import sys, tasks; [tasks.work.delay(sys.argv[2]) for _ in range(int(sys.argv[1]))]"
MAIN = "import tasks; tasks.app.worker_main(['worker', '--concurrency=2', '--loglevel=WARNING'])"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with environment(tmp_path_factory.mktemp("celery") / "venv", lock="celery") as found:
        yield found


class Worker:
    def __init__(self, python: Path, folder: Path, log: Path, environ: dict[str, str]) -> None:
        self.python, self.folder, self.log, self.environ = python, folder, log, environ
        self.url = ""

    def started(self) -> bool:
        found = re.search(r"running on (\S+)", self.log.read_text())
        self.url = found[1] if found else ""
        return bool(found)

    def samples(self) -> Samples:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as response:
            return parse(response.read().decode())

    def send(self, count: int, kind: str) -> None:
        """The messages arrive whole: a worker ends if it meets one in the queue that is still being written."""
        command = [str(self.python), "-c", SEND, str(count), kind]
        environ = {**self.environ, "OUTBOX": "outbox"}
        subprocess.run(command, cwd=self.folder, env=environ, check=True, timeout=300)
        messages = list((self.folder / "outbox").iterdir())
        assert len(messages) == count
        for message in messages:
            message.rename(self.folder / "queue" / message.name)

    def pids(self) -> list[int]:
        """Of the processes that did each task."""
        path = self.folder / "pids"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []


@contextmanager
def worker(python: Path, folder: Path, *command: str, **more: str) -> Iterator[Worker]:
    (folder / "tasks.py").write_text(TASKS)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}:{ROOT}", "PYTHONWARNINGS": "ignore", **more}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *command], cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    started = Worker(python, folder, log, environ)
    try:

        def running() -> bool:
            assert process.poll() is None, log.read_text()
            return started.started()

        wait_until(running)
        yield started
    finally:
        process.send_signal(signal.SIGQUIT)  # a cold shutdown: the pool ends, too
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # billiard waits for a lock that a process of its pool held when it ended
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_processes_of_a_pool_count_for_one_service(python: Path, tmp_path: Path) -> None:
    """Also over processes that are replaced after some tasks, and with what the main process counts."""
    command = ("-m", "celery", "-A", "tasks", "worker", "--concurrency=2", "--loglevel=WARNING")
    with worker(python, tmp_path, *command, MAX_TASKS="4") as celery:
        assert value(celery.samples(), "events_total") == 3
        celery.send(12, "first")
        wait_until(lambda: value(celery.samples(), "done_total", kind="first") == 12)
        assert len(set(celery.pids())) >= 3, "of two processes with four tasks each"
        samples = celery.samples()
        assert value(samples, "done_total") == value(samples, "times_seconds_count") == 12
        assert value(samples, "events_total") == 3
        assert value(samples, "live") <= 2, "none of those that are gone"
    assert "not shared" not in celery.log.read_text()


def test_what_a_killed_process_counted_stays(python: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a task, as by the kernel when memory is short: its successor takes over the slot."""
    command = ("-m", "celery", "-A", "tasks", "worker", "--concurrency=2", "--loglevel=WARNING")
    with worker(python, tmp_path, *command) as celery:

        def done(kind: str) -> float:
            return value(celery.samples(), "done_total", kind=kind)

        celery.send(4, "any")
        wait_until(lambda: done("any") == 4)
        for number in (1, 2, 3):
            celery.send(1, "killed")
            wait_until(lambda number=number: done("killed") == number)  # type: ignore[misc]
        celery.send(4, "any")
        wait_until(lambda: done("any") == 8)
        samples = celery.samples()
        assert value(samples, "times_seconds_count") == 11
        assert value(samples, "events_total") == 3
        wait_until(lambda: value(celery.samples(), "live") <= 2)


def test_a_pool_of_threads_counts_without_a_folder(python: Path, tmp_path: Path) -> None:
    command = ("-m", "celery", "-A", "tasks", "worker", "--pool=threads", "--concurrency=2", "--loglevel=WARNING")
    with worker(python, tmp_path, *command) as celery:
        celery.send(6, "any")
        wait_until(lambda: value(celery.samples(), "done_total", kind="any") == 6)
        assert value(celery.samples(), "events_total") == 3
    assert "PROMETHEUS_MULTIPROC_DIR" not in celery.log.read_text(), "nothing is forked, so nothing is to be shared"


def test_a_pool_that_shares_nothing_says_so_once(python: Path, tmp_path: Path) -> None:
    """A script of one's own that starts the pool is not known as one before it imports the tasks."""
    with worker(python, tmp_path, "-c", MAIN, MAX_TASKS="1") as celery:
        celery.send(3, "any")
        wait_until(lambda: len(celery.pids()) == 3)
        assert value(celery.samples(), "done_total") == 0
        assert value(celery.samples(), "events_total") == 3
    assert celery.log.read_text().count("set PROMETHEUS_MULTIPROC_DIR") == 1


def test_a_folder_shares_what_a_script_starts(python: Path, tmp_path: Path) -> None:
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with worker(python, tmp_path, "-c", MAIN, **shared) as celery:
        celery.send(3, "any")
        wait_until(lambda: value(celery.samples(), "done_total") == 3)
        assert value(celery.samples(), "events_total") == 3
    assert "PROMETHEUS_MULTIPROC_DIR" not in celery.log.read_text()
