"""Real servers with an application of the tests in them, and what their /metrics says."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.running import wait_until

ROOT = Path(__file__).resolve().parents[2]
# A worker that has no turn for five seconds on a busy machine is not to be replaced for that.
PATIENT = ("--timeout-worker-healthcheck", "120")
UVICORN = ("-m", "uvicorn", "--port", "0", "--log-level", "info", "--no-access-log", *PATIENT)
GUNICORN = (
    "-m",
    "gunicorn",
    "-k",
    "asgi",
    "-b",
    "127.0.0.1:0",
    "--access-logfile",
    "/dev/null",
    "--graceful-timeout",
    "5",
    "--timeout",
    "120",
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.port = 0

    def started(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"(?:running on|Listening at:) http://127\.0\.0\.1:(\d+)", self.log.read_text())
        self.port = int(found[1]) if found else 0
        if not self.port:
            return False
        self.get("/metrics")
        return True

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[bytes, Mapping[str, str]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read(), response.headers

    def text(self) -> str:
        return self.get("/metrics")[0].decode()

    def samples(self) -> Samples:
        """All samples but those that the scrapes themselves move."""
        return parse(self.text())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, method: str, path: str, headers: str = "", body: str = "") -> tuple[int, bytes]:
        """One request on a connection of its own, as raw as possible; the status and what came until the end."""
        with self.connect() as connection:
            length = f"content-length: {len(body)}\r\n" if body else ""
            host = "" if "host:" in headers else "host: localhost\r\n"
            request = f"{method} {path} HTTP/1.1\r\n{host}connection: close\r\n{length}{headers}\r\n{body}"
            connection.sendall(request.encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
        return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def parse(text: str) -> Samples:
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples, f"twice in one scrape: {key}"
            if sample.labels.get("endpoint") != "/metrics":
                samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples with this name and, among others, these labels."""
    wanted = set(labels.items())
    return sum(number for (of, having), number in samples.items() if of == name and wanted <= having)


@contextmanager
def serve(
    *command: str, environment: Mapping[str, str] | None = None, python: str | Path = sys.executable
) -> Iterator[Served]:
    """Run `python command...` until it serves; stop it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, *command],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **(environment or {})},
                stdout=output,
                stderr=output,
            )
        try:
            served = Served(process, log)
            wait_until(served.started)
            yield served
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
