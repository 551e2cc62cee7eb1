"""What the HTTP telemetry costs, beside other middlewares, in one run: ratios, as Markdown.

    python -m bench.bench_http

Needs the environment of bench/requirements.txt (`make bench` makes it). Instructions are counted by valgrind; where it
is missing (apt-get install valgrind) CPU time takes their place, which is noisier. Exits 1 where a target is not met,
or not proven to be.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from bench.instructions import between_marks, callgrind
from bench.over_http import BATCH, CONNECTIONS, batch, connect, processor_seconds, serve, stop
from bench.peers import MULTIPROCESS, PEERS
from bench.timing import Estimate, estimate, ratio

ROUNDS = 25
FLOOR = "cached children"
INSTRUMENTATOR = "prometheus-fastapi-instrumentator"
SEEDS = 6  # of what the targets compare,
MORE_SEEDS = 14  # and of 20 routes and 200, where a few processes are a fifth off for no reason of the routes


class Targets:
    """The lines of a table of verdicts, and whether all are met."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.all_met = True

    def at_most(self, what: str, limit: float, measured: Estimate, digits: int = 2) -> None:
        self.add(what, measured.text(digits), measured.at_most(limit))

    def at_least(self, what: str, limit: float, measured: Estimate, digits: int = 2) -> None:
        self.add(what, measured.text(digits), measured.at_least(limit))

    def add(self, what: str, measured: str, verdict: str) -> None:
        self.all_met &= verdict == "met" or what.startswith("Stretch")
        self.lines.append(f"| {what} | {measured} | {verdict} |")


# Cost of a request


class Case(NamedTuple):
    """What is measured."""

    peer: str
    routes: int
    workers: bool  # several


class Cost(NamedTuple):
    """Thousands of instructions of a request, or microseconds of CPU time."""

    bare: float
    added: float


COLUMNS = ((20, False), (200, False), (20, True))  # routes, and whether there are several workers


def measured_cases(seed: int) -> list[Case]:
    """What the targets compare is measured with many seeds, the other peers with one."""
    if seed >= SEEDS:
        return [Case("Sightline", *column) for column in COLUMNS if not column[1]]
    peers = [peer for peer in PEERS if peer != "bare" and (seed == 0 or peer in ("Sightline", FLOOR))]
    return [Case(peer, *column) for column in COLUMNS for peer in peers if not column[1] or peer in MULTIPROCESS]


def costs_with(seed: int) -> dict[Case, Cost]:
    """Measured by a process with this seed of Python's hashes: where things lie in its tables moves the count, too."""
    valgrind = shutil.which("valgrind")
    wanted = measured_cases(seed)
    requests = {True: (30, 3), False: (5, 2)} if valgrind else {True: (200, 15), False: (200, 5)}
    jobs = [(*case, *requests[case.peer in ("Sightline", FLOOR)]) for case in wanted]
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "bench.instructions", json.dumps([jobs, bool(valgrind)])]
        command = [*callgrind(folder), *ours]
        environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
        environment["PYTHONHASHSEED"] = str(seed)
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        print("".join(line for line in done.stderr.splitlines(True) if "does not run" in line), end="", file=sys.stderr)
        costs = {}
        for line in done.stdout.splitlines():
            number, pid, seconds = json.loads(line)
            spent = [value * 1e6 for value in seconds]
            if valgrind:
                spent = [total / 1e3 for total in between_marks(folder, pid)[2:]]  # without the two warm-ups
            asked = jobs[number][3]
            added = [(after - before) / asked for before, after in zip(spent[::2], spent[1::2], strict=True)]
            costs[wanted[number]] = Cost(estimate(spent[::2]).value / asked, estimate(added).value)
    return costs


def report_costs(targets: Targets) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        costs = list(pool.map(costs_with, range(MORE_SEEDS)))
    unit = "thousand instructions" if shutil.which("valgrind") else "microseconds of CPU time (noisy: no valgrind)"
    print(f"### Added cost per request, {unit}\n")
    print(
        "In one process, the same application with and without the middleware in turn; requests go to the last route.\n"
        f"The median of at least {SEEDS} processes with different hash seeds; in brackets, the interval that contains\n"
        "it with 95 % probability; the other peers, far from the targets, are measured with one seed only.\n"
        "`cached children` is the floor: prometheus_client's objects looked up once, in a bare ASGI wrapper, counting\n"
        "requests by method, route and status, durations, and requests in progress by method, and nothing else.\n"
        "Sightline also counts the response's start, both sizes, failures, exceptions and clients that left.\n"
    )
    titles = [f"{routes} routes, {'several workers' if workers else 'one process'}" for routes, workers in COLUMNS]
    print("| | " + " | ".join(titles) + " |\n|---|" + "---:|" * len(COLUMNS))

    def added(peer: str, routes: int, workers: bool) -> list[float]:
        case = Case(peer, routes, workers)
        return [found[case].added for found in costs if case in found]

    bare = [estimate([found[Case("Sightline", *column)].bare for found in costs[:SEEDS]]) for column in COLUMNS]
    print("| bare application, in all | " + " | ".join(estimate.text(0) for estimate in bare) + " |")
    for peer in [peer for peer in PEERS if peer != "bare"]:
        cells = []
        for routes, workers in COLUMNS:
            values = added(peer, routes, workers)
            if not values:
                cells.append("-" if workers and peer not in MULTIPROCESS else "does not run")
            else:
                cells.append(estimate(values).text(1) if len(values) > 1 else f"{values[0]:.0f}")
        print(f"| {peer} | " + " | ".join(cells) + " |")
    print()
    ours = added("Sightline", 20, False)
    one = ratio(ours[:SEEDS], added(FLOOR, 20, False))
    several = ratio(added("Sightline", 20, True), added(FLOOR, 20, True))
    less = estimate(theirs / mine for theirs in added(INSTRUMENTATOR, 20, False) for mine in ours)
    targets.at_most("Request, one process, of cached children: at most 0.52", 0.52, one, 3)
    targets.at_most("Request, several workers, of cached children: at most 0.58", 0.58, several, 3)
    targets.at_least("Request: 10 times below prometheus-fastapi-instrumentator", 10, less, 1)
    growth = ratio(added("Sightline", 200, False), ours)
    targets.at_most("Request: with 200 routes at most 1.05 of with 20", 1.05, growth)
    targets.at_most("Stretch: half of cached children", 0.5, one, 3)


# Over HTTP


def report_throughput(targets: Targets) -> None:
    peers = ("bare", "Sightline", FLOOR, INSTRUMENTATOR, "starlette_exporter")
    servers = {peer: serve(peer) for peer in peers}
    rates: dict[str, list[float]] = {peer: [] for peer in peers}
    spent: dict[str, list[float]] = {peer: [] for peer in peers}
    processors = sorted(os.sched_getaffinity(0))
    try:
        if len(processors) > 1:  # the servers on one, the client on the other
            for process, _ in servers.values():
                os.sched_setaffinity(process.pid, processors[:1])
            os.sched_setaffinity(0, processors[1:])
        for round_ in range(-1, ROUNDS):  # the first warms up
            for peer in peers if round_ % 2 else reversed(peers):
                process, port = servers[peer]
                before = processor_seconds(process)
                rate = asyncio.run(batch(port))
                if round_ >= 0:
                    rates[peer].append(rate)
                    spent[peer].append(processor_seconds(process) - before)
    finally:
        os.sched_setaffinity(0, processors)
        for process, _ in servers.values():
            stop(process)
    print("### Throughput over HTTP (uvicorn, keep-alive, one worker)\n")
    print(f"{ROUNDS} interleaved rounds of {BATCH} requests on {CONNECTIONS} connections: the median of the rounds'")
    print("ratios, and the interval that contains it with 95 % probability.")
    print("The second column uses the server's CPU time instead of wall time: other programs affect it less.\n")
    print(f"| | of the bare application's {estimate(rates['bare']).value:.0f} requests a second | by processor time |")
    print("|---|---:|---:|")
    for peer in peers[1:]:
        rate = ratio(rates[peer], rates["bare"])
        share = ratio(spent["bare"], spent[peer])
        print(f"| {peer} | {rate.text(3)} | {share.text(3)} |")
        if peer == "Sightline":
            targets.at_least("Throughput, of the bare application: at least 0.92", 0.92, rate, 3)
            targets.at_least("The same by the server's processor time", 0.92, share, 3)
    print()


# Scrapes


def scrape_job(engine: str, combinations: int, workers: int, times: int = 5) -> dict[str, Any]:
    """Render times, lines and memory of a histogram, measured by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
        if workers:
            environment["PROMETHEUS_MULTIPROC_DIR"] = folder
        command = [sys.executable, "-m", "bench.scrape", engine, str(combinations), str(workers), str(times)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{engine}: {done.stderr.strip().splitlines()[-1]}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def report_scrapes(targets: Targets) -> None:
    print("### A scrape: time to render a histogram of 17 buckets\n")
    print("The median of the renderings in one process; ratio: prometheus_client's fastest to Sightline's slowest.\n")
    print("| combinations | worker files | lines, both | Sightline, ms | prometheus_client, ms | ratio, at least |")
    print("|---:|---:|---:|---:|---:|---:|")
    worst = []
    for combinations in (1_000, 10_000):
        for workers in (0, 1, 4, 16):
            ours = scrape_job("Sightline", combinations, workers)
            theirs = scrape_job("prometheus_client", combinations, workers)
            if ours["lines"] != theirs["lines"]:
                raise RuntimeError(f"{ours['lines']} lines are not {theirs['lines']}")
            worst.append(min(theirs["seconds"]) / max(ours["seconds"]))
            shown = workers or "one process"
            times = [f"{estimate(job['seconds']).value * 1e3:.1f}" for job in (ours, theirs)]
            print(f"| {combinations} | {shown} | {ours['lines']} | {times[0]} | {times[1]} | {worst[-1]:.1f} |")
    print()
    targets.at_least("Scrape, times faster than prometheus_client: at least 10", 10, estimate([min(worst)]), 1)


def report_memory(targets: Targets) -> None:
    print("### Memory of 10,000 combinations of that histogram\n")
    print(
        "Growth of a process' resident memory, three processes each. prometheus_client's is that of all peers made of"
    )
    print("it: cached children, prometheus-fastapi-instrumentator, starlette_exporter, starlette-prometheus.\n")
    print("| | lines | MiB |\n|---|---:|---:|")
    engines = {
        ("Sightline", 0): "Sightline",
        ("Sightline", 1): "Sightline, one of several workers",
        ("prometheus_client", 0): "prometheus_client",
        ("prometheus_client", 1): "prometheus_client, multiprocess mode",
        ("aioprometheus", 0): "aioprometheus",
        ("OpenTelemetry", 0): "OpenTelemetry SDK with its Prometheus exporter",
    }
    sizes = {}
    for (engine, workers), title in engines.items():
        jobs = [scrape_job(engine, 10_000, workers, 1) for _ in range(3)]
        size = sizes[engine, workers] = estimate([job["memory"] / 2**20 for job in jobs])
        print(f"| {title} | {jobs[0]['lines']} | {size.text(1)} |")
    print()
    for workers in (0, 1):
        others = min(
            size.low for (engine, shared), size in sizes.items() if engine != "Sightline" and shared == workers
        )
        of = "one process" if not workers else "several workers"
        share = sizes["Sightline", workers].high / others
        targets.at_most(f"Memory, {of}, of the leanest peer: below 1 (our most, their least)", 1, estimate([share]))


async def worst_latency(port: int, connections: int) -> float:
    """Of requests one after another on each connection while /metrics is read once, milliseconds."""
    clients = [await connect(port, sys.maxsize) for _ in range(connections)]
    until = asyncio.Event()
    for client in clients:
        client.until = until
    await asyncio.sleep(0.3)
    for client in clients:
        client.worst = 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    size = 0
    while data := await reader.read(1 << 16):
        size += len(data)
    writer.close()
    until.set()
    await asyncio.gather(*(client.done for client in clients))
    if size < 1_000_000:
        raise RuntimeError("/metrics is too short to be what was asked for")
    return max(client.worst for client in clients) * 1e3


def report_stalls(targets: Targets) -> None:
    print("### Worst latency of a request during a scrape of 10,000 combinations, real HTTP, ms\n")
    print(
        "The median of the scrapes, and the worst of all. The worker that renders answers requests at the same time,\n"
        "one after another. In the last column four workers do, on eight connections that ask as fast as they can:\n"
        f"five busy processes on {os.cpu_count()} processors, so that requests wait without a scrape, too.\n"
    )
    cases = {
        "one process": (0, 1),
        "4 workers' files": (4, 1),
        "16 workers' files": (16, 1),
        "4 workers serving": (4, 4),
    }
    print("| | " + " | ".join(cases) + " |\n|---|" + "---:|" * len(cases))
    for peer, scrapes in (("Sightline", 7), (INSTRUMENTATOR, 2)):
        cells = []
        for of, (workers, serving) in cases.items():
            if workers == 16 and peer != "Sightline":
                cells.append("not measured")
                continue
            with tempfile.TemporaryDirectory() as folder:
                process, port = serve(peer, folder, 10_000, workers, serving)
                try:
                    connections = 1 if serving == 1 else 8
                    worst = [asyncio.run(worst_latency(port, connections)) for _ in range(scrapes)]
                finally:
                    stop(process)
            cells.append(f"{estimate(worst).value:.1f}, {max(worst):.1f}")
            if peer == "Sightline":
                targets.at_most(f"Worst request in {scrapes} scrapes, {of}: 50 ms", 50, estimate([max(worst)]), 1)
        print(f"| {peer} | " + " | ".join(cells) + " |")
    print()


REPORTS = {
    "Cost of a request": report_costs,
    "Throughput": report_throughput,
    "Scrapes": report_scrapes,
    "Memory": report_memory,
    "Requests during a scrape": report_stalls,
}


def main() -> int:
    targets = Targets()
    for title, report in REPORTS.items():
        began = time.perf_counter()
        try:
            report(targets)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            print(f"\n**Not measured:** {str(error)[:300]}\n")
            targets.add(title, "-", "**not measured**")
        print(f"{title}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print("### Targets\n\n| target | measured | |\n|---|---:|---|")
    print("\n".join(targets.lines))
    return 0 if targets.all_met else 1


if __name__ == "__main__":
    sys.exit(main())
