"""Users on other machines, here network namespaces: counted and judged by the machine that leads."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx2
import pytest

from ops import servers as native
from ops.paths import PROJECT
from tests.running import Running, folder, free_port, start, wait_until
from tests.servers import Postgres

NAMESPACES = os.geteuid() == 0 and shutil.which("ip") is not None
needs_namespaces = pytest.mark.skipif(not NAMESPACES, reason="network namespaces need root and `ip`")
MACHINES = 2
WORKERS = 2  # processes on each
USERS = 8


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def machine(name: str, network: str) -> Iterator[str]:
    """A network namespace with a cable to this one; gives this one's address in `network`, 198.18.5 for example."""
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"{network}.1/24", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "address", "add", f"{network}.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", f"{network}.1")
        yield f"{network}.1"
    finally:
        ip("netns", "delete", name)


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Name of a namespace -> this machine's address as seen there. Addresses are of those reserved for benchmarks."""
    third = random.randint(1, 254)
    names = [f"sl{os.getpid() % 10**8}{letter}" for letter in "ab"]
    with machine(names[0], f"198.18.{third}") as first, machine(names[1], f"198.19.{third}") as second:
        yield dict(zip(names, (first, second), strict=True))


@contextmanager
def service(postgres: Postgres, address: str) -> Iterator[Running]:
    """The service, listening at this address alone."""

    def make(port: int) -> native.Server:
        made = native.app(port, {**postgres.environment(postgres.create_database()), "TMPDIR": str(path)})
        environment = {**made.environment, "APP_HOST": address}
        return replace(made, environment=environment, probe=native.http_probe(f"http://{address}:{port}/readyz"))

    with folder("app") as path:
        running = start(make, path)
        running.url = f"http://{address}:{running.port}"
        try:
            yield running
        finally:
            running.stop()


def loadtest(*options: str, settings: dict[str, str], prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "loadtest", *options],
        env={**os.environ, "LOADTEST_LINGER": "0", "THINK": "0-0.2", **settings},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def counted(service: Running) -> int:
    """Requests that the service has counted, those for its health and metrics left out."""
    text = httpx2.get(f"{service.url}/metrics", timeout=30, trust_env=False).raise_for_status().text
    lines = re.findall(r"^http_requests_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    asked = [float(value) for labels, value in lines if not re.search(r'endpoint="/(metrics|healthz|readyz)"', labels)]
    return int(sum(asked))


def listens(address: str, port: int) -> bool:
    with socket.create_connection((address, port), 1):
        return True


@needs_namespaces
def test_workers_of_other_machines_are_led_counted_and_judged(postgres: Postgres, machines: dict[str, str]) -> None:
    here = next(iter(machines.values()))
    port = free_port()
    users = {"WEIGHTS": "chat=0,stream=0,abandon=0", "MASTER": f"{here}:{port}"}
    with service(postgres, here) as remote:
        load = {"HOST": remote.url, "USERS": str(USERS), "DURATION": "10s", "LOCUST_METRICS_PORT": str(free_port())}
        leader = loadtest(settings={**users, **load, "WORKERS": str(MACHINES * WORKERS)})
        workers = []
        try:
            wait_until(lambda: listens(here, port))
            for name in machines:
                inside = ("ip", "netns", "exec", name)
                workers.append(loadtest("--worker", settings={**users, "WORKERS": str(WORKERS)}, prefix=inside))
            said, _ = leader.communicate(timeout=300)
            ended = [worker.communicate(timeout=300)[0] for worker in workers]
        finally:
            for process in (leader, *workers):
                process.kill()
                process.wait()
        output = "".join([said, *ended])
        verdict = re.search(r"^Verdict: (passed|FAILED)", output, re.MULTILINE)
        assert verdict, output
        # How fast this machine is at the moment is not the question: both verdicts are, and the exit code is theirs.
        assert leader.returncode == (0 if verdict[1] == "passed" else 1), output
        assert [worker.returncode for worker in workers] == [0] * MACHINES, output
        assert f"Waiting for {MACHINES * WORKERS} workers: `make loadtest-worker MASTER={here}:{port}`" in said
        rows = re.findall(r"^(?:GET|POST|PUT|PATCH|DELETE) .*?  +(\d+)  +\d+ ", said, re.MULTILINE)
        assert sum(map(int, rows)) == counted(remote) > USERS, output


def test_a_worker_without_a_coordinator_reports_it() -> None:
    cases: tuple[tuple[dict[str, str], str], ...] = (
        ({}, "loadtest: set MASTER= to the coordinating machine, where `make loadtest MASTER=...` runs.\n"),
        ({"MASTER": "127.0.0.1:1"}, "loadtest: no load test at 127.0.0.1:1 "),
        ({"MASTER": "a/b"}, "loadtest: MASTER=a/b: give an address of this network, such as 192.0.2.10\n"),
    )
    for settings, message in cases:
        refused = loadtest("--worker", settings=settings)
        said, _ = refused.communicate(timeout=300)
        assert refused.returncode == 1
        assert said.startswith(message)
