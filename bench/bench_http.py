"""What the HTTP telemetry costs, beside other middlewares, in one run: ratios, as Markdown.

    python -m bench.bench_http

Needs the environment of bench/requirements.txt (`make bench` makes it). Instructions are counted by valgrind; where it
is missing (apt-get install valgrind) CPU time takes their place, which is noisier. Exits 1 where a target is not met.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.peers import MULTIPROCESS, PEERS

ROUTES = (20, 200)
REQUESTS = 400  # under valgrind, and twice as many
CPU_REQUESTS = 3000
ROUNDS = 7
BATCH = 3000  # requests of a round over HTTP
CONNECTIONS = 8
FLOOR = "cached children"
INSTRUMENTATOR = "prometheus-fastapi-instrumentator"

Job = tuple[str, int, bool, int]


class Targets:
    """Prints a verdict for each and remembers whether all were met."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.met = True

    def check(self, what: str, value: str, good: bool) -> None:
        self.met &= good
        self.lines.append(f"| {what} | {value} | {'met' if good else '**NOT met**'} |")


# Cost of a request


def run_jobs(jobs: list[Job], valgrind: str | None) -> dict[Job, float]:
    """Instructions of a whole process, or CPU seconds of one request where valgrind is missing."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.instructions", json.dumps(jobs)]
        if valgrind:
            tool = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
            command = [valgrind, *tool, f"--log-file={folder}/%p", *command]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = {int(pid): float(value) for pid, value in re.findall(r"^seconds (\d+) (\S+)$", output, re.MULTILINE)}
        pids = [json.loads(line)[1] for line in output.splitlines() if line.startswith('["done"')]
        results = {}
        for job, pid in zip(jobs, pids, strict=True):
            if pid in seconds:
                if valgrind:
                    counted = re.search(r"I\s+refs:\s+([\d,]+)", Path(folder, str(pid)).read_text())
                    if counted is None:
                        raise RuntimeError("valgrind did not say how many instructions it counted")
                    results[job] = float(counted[1].replace(",", ""))
                else:
                    results[job] = seconds[pid]
    return results


def request_costs(valgrind: str | None) -> dict[tuple[str, int, bool], float]:
    """Thousands of instructions, or microseconds of CPU time, of a request."""
    cases = [
        (peer, routes, workers)
        for peer in PEERS
        for routes in ROUTES
        for workers in (False, True)
        if not workers or peer in MULTIPROCESS
    ]
    if not valgrind:
        found: dict[tuple[str, int, bool], list[float]] = {case: [] for case in cases}
        for _ in range(3):
            for job, seconds in run_jobs([(*case, CPU_REQUESTS) for case in cases], None).items():
                found[job[:3]].append(seconds)
        return {case: min(seconds) * 1e6 for case, seconds in found.items() if seconds}
    jobs: list[Job] = [(*case, times * REQUESTS) for case in cases for times in (1, 2)]
    half = len(jobs) // 4 * 2
    counts: dict[Job, float] = {}
    with ThreadPoolExecutor(2) as pool:
        for part in pool.map(run_jobs, (jobs[:half], jobs[half:]), (valgrind, valgrind)):
            counts.update(part)
    return {
        case: (counts[*case, 2 * REQUESTS] - counts[*case, REQUESTS]) / REQUESTS / 1e3
        for case in cases
        if (*case, 2 * REQUESTS) in counts and (*case, REQUESTS) in counts
    }


def report_costs(targets: Targets) -> None:
    valgrind = shutil.which("valgrind")
    costs = request_costs(valgrind)
    unit = "thousand instructions" if valgrind else "microseconds of CPU time (valgrind is missing: noisy)"
    print(f"### Added cost per request, {unit}\n")
    print("In-process, the last route asked for; `x floor` is the ratio to cached prometheus_client children.\n")
    columns = [(routes, workers) for workers in (False, True) for routes in ROUTES]
    titles = [f"{routes} routes, {'several workers' if workers else 'one process'}" for routes, workers in columns]
    print("| | " + " | ".join(titles) + " |\n|---|" + "---:|" * len(columns))
    added = {
        (peer, routes, workers): cost - costs["bare", routes, workers]
        for (peer, routes, workers), cost in costs.items()
    }
    for peer in PEERS:
        cells = []
        for column in columns:
            key = (peer, *column)
            if key not in costs:
                cells.append("-" if column[1] and peer not in MULTIPROCESS else "failed")
            elif peer == "bare":
                cells.append(f"{costs[key]:.0f} in all")
            else:
                cells.append(f"{added[key]:.1f} ({added[key] / added[FLOOR, *column]:.2f} x floor)")
        print(f"| {peer} | " + " | ".join(cells) + " |")
    print()
    noise = abs(added[FLOOR, 200, False] - added[FLOOR, 20, False])
    print(f"With 200 routes the noise is about {noise:.0f}: cached children do the same work there as with 20.\n")
    one = added["Sightline", 20, False] / added[FLOOR, 20, False]
    several = added["Sightline", 20, True] / added[FLOOR, 20, True]
    less = added[INSTRUMENTATOR, 20, False] / added["Sightline", 20, False]
    growth = added["Sightline", 200, False] / added["Sightline", 20, False]
    targets.check("Request, one process: not above cached children", f"{one:.2f} times", one <= 1)
    targets.check("Request, several workers: below cached children", f"{several:.2f} times", several < 1)
    targets.check("Request: 10 times below prometheus-fastapi-instrumentator", f"{less:.1f} times below", less >= 10)
    targets.check("Request: the same with 200 routes as with 20 (within 5 %)", f"{growth:.2f} times", growth <= 1.05)
    targets.check("Stretch: half of cached children", f"{one:.2f} times", one <= 0.5)


# Over HTTP


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it has the answer."""

    def __init__(self, count: int, path: str, done: asyncio.Future[None]) -> None:
        self.left = count
        self.request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        self.done = done
        self.worst = 0.0
        self.until: asyncio.Event | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data and not data.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(data[:200].decode()))
        if not data.endswith(b"}"):  # the rest of the response is to come
            return
        self.worst = max(self.worst, time.perf_counter() - self.asked)
        self.left -= 1
        if self.left > 0 and not (self.until and self.until.is_set()):
            self.ask()
        else:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)


async def connect(port: int, count: int) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: Client(count, "/route19/7", loop.create_future()), "127.0.0.1", port
    )
    return client


async def batch(port: int) -> float:
    """Requests a second."""
    began = time.perf_counter()
    clients = [await connect(port, BATCH // CONNECTIONS) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(client.done for client in clients))
    return BATCH / (time.perf_counter() - began)


def serve(peer: str, folder: str = "", combinations: int = 0) -> tuple[subprocess.Popen[str], int]:
    """A server of this peer and its port."""
    environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    if folder:
        environment["PROMETHEUS_MULTIPROC_DIR"] = folder
    command = [sys.executable, "-m", "bench.serve", peer, str(combinations)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{peer} does not start")
    return process, int(line)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()


def report_throughput(targets: Targets) -> None:
    peers = ("bare", "Sightline", FLOOR, INSTRUMENTATOR, "starlette_exporter")
    servers = {peer: serve(peer) for peer in peers}
    rates: dict[str, list[float]] = {peer: [] for peer in peers}
    try:
        for round_ in range(-1, ROUNDS):  # the first warms up
            for peer, (_, port) in servers.items():
                rate = asyncio.run(batch(port))
                if round_ >= 0:
                    rates[peer].append(rate)
    finally:
        for process, _ in servers.values():
            stop(process)
    print("### Throughput over HTTP (uvicorn, keep-alive, one worker)\n")
    print(f"Median of {ROUNDS} interleaved rounds of {BATCH} requests on {CONNECTIONS} connections.\n")
    print("| | of the bare application | lowest and highest round |\n|---|---:|---:|")
    for peer in peers[1:]:
        ratios = [mine / bare for mine, bare in zip(rates[peer], rates["bare"], strict=True)]
        median = statistics.median(ratios)
        print(f"| {peer} | {median:.3f} | {min(ratios):.3f} to {max(ratios):.3f} |")
        if peer == "Sightline":
            targets.check("Throughput: at least 0.92 of the bare application", f"{median:.3f}", median >= 0.92)
    print()


# Scrapes


def scrape_job(engine: str, combinations: int, workers: int) -> dict[str, Any]:
    """Render time, lines and memory of a histogram, measured by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
        if workers:
            environment["PROMETHEUS_MULTIPROC_DIR"] = folder
        command = [sys.executable, "-m", "bench.scrape", engine, str(combinations), str(workers)]
        result: dict[str, Any] = json.loads(
            subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        )
        return result


def report_scrapes(targets: Targets) -> None:
    print("### A scrape: time to render a histogram of 17 buckets\n")
    print("| combinations | worker files | lines, both | Sightline, ms | prometheus_client, ms | ratio |")
    print("|---:|---:|---:|---:|---:|---:|")
    ratios = []
    memory = {}
    for combinations in (1_000, 10_000):
        for workers in (0, 1, 4, 16):
            ours = scrape_job("Sightline", combinations, workers)
            theirs = scrape_job("prometheus_client", combinations, workers)
            if ours["lines"] != theirs["lines"]:
                raise RuntimeError(f"{ours['lines']} lines are not {theirs['lines']}")
            ratio = theirs["seconds"] / ours["seconds"]
            if workers:
                ratios.append(ratio)
            elif combinations == 10_000:
                memory = {"Sightline": ours["memory"], "prometheus_client": theirs["memory"]}
            shown = workers or "one process"
            times = f"{ours['seconds'] * 1e3:.1f} | {theirs['seconds'] * 1e3:.1f}"
            print(f"| {combinations} | {shown} | {ours['lines']} | {times} | {ratio:.1f} |")
    print("\n### Memory of 10,000 combinations of that histogram\n\n| | MiB |\n|---|---:|")
    for engine, size in memory.items():
        print(f"| {engine} | {size / 2**20:.1f} |")
    print()
    targets.check(
        "Scrape: 10 times faster than prometheus_client (worst case)", f"{min(ratios):.1f} times", min(ratios) >= 10
    )
    share = memory["Sightline"] / memory["prometheus_client"]
    targets.check("Memory: below prometheus_client's children", f"{share:.2f} of it", share < 1)


async def worst_latency(port: int) -> float:
    """Of requests one after another while /metrics is read once."""
    client = await connect(port, sys.maxsize)
    client.until = asyncio.Event()
    await asyncio.sleep(0.3)
    client.worst = 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    size = 0
    while data := await reader.read(1 << 16):
        size += len(data)
    writer.close()
    client.until.set()
    await client.done
    if size < 1_000_000:
        raise RuntimeError("/metrics is too short to be what was asked for")
    return client.worst


def report_stalls(targets: Targets) -> None:
    print("### Worst latency of a request during a scrape of 10,000 combinations, real HTTP\n")
    print("| | ms, median of 3 | ms, worst of 3 |\n|---|---:|---:|")
    for peer in ("Sightline", "prometheus-fastapi-instrumentator"):
        process, port = serve(peer, combinations=10_000)
        try:
            worst = [asyncio.run(worst_latency(port)) * 1e3 for _ in range(3)]
        finally:
            stop(process)
        print(f"| {peer} | {statistics.median(worst):.1f} | {max(worst):.1f} |")
        if peer == "Sightline":
            targets.check("Worst request during a scrape: under 50 ms", f"{max(worst):.1f} ms", max(worst) < 50)
    print()


def main() -> int:
    targets = Targets()
    for report in (report_costs, report_throughput, report_scrapes, report_stalls):
        report(targets)
    print("### Targets\n\n| target | measured | |\n|---|---:|---|")
    print("\n".join(targets.lines))
    return 0 if targets.met else 1


if __name__ == "__main__":
    sys.exit(main())
