"""What Prometheus costs for many instances of the service, with the stack's own settings and rules, as Markdown.

    python -m bench.bench_scale

The reference service's /metrics is recorded after some traffic. One server then serves it, its counters growing, as
each of INSTANCES="1 10 50 200" instances, and two Prometheus scrape them at the same time for SECONDS=180: one with
the service, prometheus.yml and rules of BASELINE=git revision, else with today's that drop nothing; one with today's.
CPU is processor time, so that others at work don't count. Disk is measured as one day of one instance's series written
to blocks. Exits 1 where a target is not met. With the defaults it takes a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import yaml

from bench import blocks
from bench.bench_dashboards import build, cpu_seconds
from bench.recorded import SECONDS
from bench.started import started
from ops import secrets, servers
from ops.paths import PROJECT
from ops.programs import find
from tests import servers as running

MOST = 0.5  # of the series and the memory that the largest number of instances costs with the first configuration
RULES_SHARE = {50: 0.05}  # instances -> of a core, at most, to evaluate today's rules
DAY = 86400
LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$")
Metrics = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """One Prometheus at one number of instances."""

    instances: int
    scraped: float  # samples of a scrape of one instance
    kept: float  # of these
    series: float  # in all, with what the rules record
    memory: float  # bytes, the most that was resident
    cpu: float  # share of one core
    rules: float  # seconds for all groups, once
    rules_share: float  # of the time in which one group or another is evaluated
    scrape: float  # seconds, of one instance
    samples: float  # a second
    missed: float  # evaluations of groups of rules that were left out, the one before having taken too long


@dataclass(frozen=True)
class Build:
    """What is compared: the folder like prometheus/, and what its service exposes."""

    prometheus: Path
    exposition: Exposition


def recorded(build: Path) -> Exposition:
    """/metrics of this build's service."""
    command = [sys.executable, str(PROJECT / "bench" / "recorded.py")]
    path = f"{find('postgres')['postgres'].parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(build), "PATH": path}
    done = subprocess.run(command, cwd=build, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Exposition(done.stdout)


class Exposition:
    """A recorded /metrics that goes on as it began: counters grow at the rate they had."""

    def __init__(self, text: str) -> None:
        self._began = time.monotonic()
        self._parts: list[tuple[str, float]] = []
        self._second, self._body = -1, b""
        self._lock = threading.Lock()
        counts = False
        for line in text.splitlines():
            if line.startswith("# TYPE"):
                counts = line.endswith((" counter", " histogram"))
            found = LINE.match(line)
            grows = counts and found is not None
            self._parts.append(
                (line.rpartition(" ")[0] if grows else line, float(line.rpartition(" ")[2]) if grows else -1.0)
            )

    def body(self) -> bytes:
        """The text of this second."""
        with self._lock:
            now = time.monotonic() - self._began
            if int(now) != self._second:
                factor = 1 + now / SECONDS
                lines = (f"{text} {int(value * factor)}" if value >= 0 else text for text, value in self._parts)
                self._second, self._body = int(now), "\n".join((*lines, "")).encode()
            return self._body


def handler(expositions: list[Exposition]) -> type[BaseHTTPRequestHandler]:
    """/0/17 is instance 17 of the first one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = expositions[int(self.path.split("/")[1])].body()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            with suppress(ConnectionError):  # a Prometheus that was ended in the middle of a scrape
                super().handle()

        def log_request(self, *_: object) -> None:
            pass

    return Handler


def builds(folder: Path) -> dict[str, Build]:
    """Title -> what is compared with, and today's."""
    now = Build(PROJECT / "prometheus", recorded(PROJECT))
    if revision := os.environ.get("BASELINE"):
        archive = subprocess.run(["git", "archive", revision], cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "--extract", "--directory", folder], input=archive, check=True)
        return {f"build {revision}": Build(folder / "prometheus", recorded(folder)), "now": now}
    shutil.copytree(PROJECT / "prometheus", folder / "prometheus")
    file = folder / "prometheus" / "prometheus.yml"
    document = yaml.safe_load(file.read_text())
    for job in document["scrape_configs"]:
        job.pop("metric_relabel_configs", None)
    file.write_text(yaml.safe_dump(document))
    return {"nothing dropped": Build(folder / "prometheus", now.exposition), "now": now}


@contextmanager
def prometheus(source: Path, instances: int, target: str, path: str = "") -> Iterator[tuple[str, int]]:
    """A Prometheus with the configuration in `source` that scrapes so many instances; its address and process id."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        secrets.generate(folder / "secrets")
        (folder / "config" / "targets").mkdir(parents=True)
        (folder / "config" / "prometheus.yml").symlink_to(source / "prometheus.yml")
        (folder / "config" / "rules").symlink_to(source / "rules")
        (folder / "config" / "secrets").symlink_to(folder / "secrets" / "prometheus")
        books = [
            {
                "targets": [target],
                "labels": {"instance": f"10.0.0.{number}:8000", "__metrics_path__": f"{path}/{number}"},
            }
            for number in range(instances)
        ]
        port = running.free_port()
        for book in (source / "targets").glob("*.yml"):
            own = {"app": books, "prometheus": [{"targets": [f"{servers.HOST}:{port}"]}]}.get(book.stem, [])
            (folder / "config" / "targets" / book.name).write_text(json.dumps(own))
        server = servers.prometheus(folder / "config" / "prometheus.yml", folder / "data", port)
        with started(server) as pid:
            yield server.url, pid


def asked(url: str, path: str, **parameters: str) -> list[dict[str, object]]:
    """The data of an answer of Prometheus' HTTP API."""
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=60) as answer:
        data = json.load(answer)["data"]
    return list(data["result"] if path == "query" else data)


def value(url: str, query: str) -> float:
    """The value of a query with one series.

    Raises:
        SystemExit: it has none.
    """
    result = asked(url, "query", query=query)
    if len(result) != 1:
        raise SystemExit(f"{query} has {len(result)} series")
    return float(result[0]["value"][1])  # type: ignore[index]


def resident(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024.0 if found else 0.0


def measure(
    found: dict[str, Build], instances: int, target: str, seconds: float
) -> tuple[dict[str, Cost], dict[str, list[blocks.Series]]]:
    """Title -> what it costs, and the series that it keeps of one instance."""
    with ExitStack() as stack:
        prometheis = {
            title: stack.enter_context(prometheus(one.prometheus, instances, target, f"/{number}"))
            for number, (title, one) in enumerate(found.items())
        }
        time.sleep(seconds / 3)  # all targets scraped, all rules evaluated
        began = time.monotonic()
        spent = {title: cpu_seconds(pid) for title, (_, pid) in prometheis.items()}
        memory = dict.fromkeys(prometheis, 0.0)
        while time.monotonic() < began + seconds * 2 / 3:
            time.sleep(1)
            memory = {title: max(memory[title], resident(pid)) for title, (_, pid) in prometheis.items()}
        elapsed = time.monotonic() - began
        costs, kept = {}, {}
        for title, (url, pid) in prometheis.items():
            costs[title] = Cost(
                instances,
                value(url, 'avg(scrape_samples_scraped{job="app"})'),
                value(url, 'avg(scrape_samples_post_metric_relabeling{job="app"})'),
                value(url, "prometheus_tsdb_head_series"),
                memory[title],
                (cpu_seconds(pid) - spent[title]) / elapsed,
                value(url, "sum(prometheus_rule_group_last_duration_seconds)"),
                value(url, "sum(rate(prometheus_rule_group_duration_seconds_sum[1m]))"),
                value(url, 'avg(scrape_duration_seconds{job="app"})'),
                value(url, "sum(rate(prometheus_tsdb_head_samples_appended_total[1m]))"),
                value(url, "sum(prometheus_rule_group_iterations_missed_total)"),
            )
            kept[title] = _series(asked(url, "query", query='{job="app", instance="10.0.0.0:8000"}'))
    return costs, kept


def _series(result: list[dict[str, object]]) -> list[blocks.Series]:
    found = []
    for one in result:
        labels = dict(one["metric"])  # type: ignore[call-overload]
        name = labels.pop("__name__")
        counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
        last = float(one["value"][1])  # type: ignore[index]
        found.append(blocks.Series(name, labels, last / 300 if counts else last, gauge=not counts))
    return found


def sample_bytes(series: list[blocks.Series]) -> float:
    """Bytes on disk for a sample, index and all: a day of one instance in blocks."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        build(series, 1, 15, data)
        metas = [json.loads(file.read_text()) for file in data.glob("*/meta.json")]
        used = sum(file.stat().st_size for meta in data.glob("*/meta.json") for file in meta.parent.rglob("*"))
    return used / sum(meta["stats"]["numSamples"] for meta in metas)


def main() -> int:
    counts = sorted(map(int, os.environ.get("INSTANCES", "1 10 50 200").split()))
    seconds = float(os.environ.get("SECONDS", "180"))
    costs: list[dict[str, Cost]] = []
    with ExitStack() as stack:
        found = builds(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        web = handler([one.exposition for one in found.values()])
        target = stack.enter_context(running.web_server(web)).removeprefix("http://")
        for number in counts:
            row, kept = measure(found, number, target, seconds)
            costs.append(row)
    size = {title: sample_bytes(series) for title, series in kept.items()}
    for title, cost in costs[-1].items():
        print(f"{title}: {cost.kept:.0f} of the {cost.scraped:.0f} samples of one instance are kept.")
    print(f"Each row: {seconds:.0f} s, the last two thirds of them measured. A sample takes")
    print(", ".join(f"{size[title]:.2f} bytes on disk ({title})" for title in size) + ".\n")
    print(
        "| instances | | series | memory | CPU, of a core | disk a day | all rules once | rules, of a core | a scrape |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in costs:
        for title, cost in row.items():
            disk = size[title] * cost.samples * DAY
            print(
                f"| {cost.instances} | {title} | {cost.series:,.0f} | {cost.memory / 2**20:,.0f} MiB | {cost.cpu:.1%}"
                f" | {disk / 1e9:.2f} GB | {cost.rules * 1e3:.0f} ms | {cost.rules_share:.1%}"
                f" | {cost.scrape * 1e3:.0f} ms |"
            )
    for row in costs:
        for title, cost in row.items():
            if cost.missed:
                print(
                    f"\n{title}, {cost.instances} instances: {cost.missed:.0f} evaluations of rules were left out: the"
                )
                print("machine was too busy, the figures by the clock are too high, CPU is too low.")
    first, *titles = size
    before = costs[-1][first]
    print(
        f"\n| at {before.instances} instances, of {first} | series | memory | at most {MOST:g} |\n|---|---:|---:|---|"
    )
    met = []
    for title in titles:
        series = costs[-1][title].series / before.series
        memory = costs[-1][title].memory / before.memory
        met.append(max(series, memory) <= MOST)
        print(f"| {title} | {series:.2f} | {memory:.2f} | {'met' if met[-1] else '**missed**'} |")
    for row in costs:
        cost = row[titles[-1]]
        if most := RULES_SHARE.get(cost.instances):
            met.append(cost.rules_share <= most)
            verdict = "met" if met[-1] else "**missed**"
            share = f"{cost.rules_share:.1%} of a core, at most {most:.0%}"
            print(f"\nEvaluating the rules of {cost.instances} instances: {share}: {verdict}.")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
