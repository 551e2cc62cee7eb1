"""How long Prometheus takes for the panels of the dashboards, where there are many instances and days, as Markdown.

    python -m bench.bench_dashboards

Data of INSTANCES=50 instances and DAYS=7 days, scraped every INTERVAL=15 seconds, are written to a Prometheus through
its remote-write receiver; BLOCKS=folder keeps them. Each panel's queries are asked as Grafana asks them at 1600 pixels,
one after the other; then those of an earlier build, on the same blocks: the one of BASELINE=git revision, else today's
panels without the records of prometheus/rules/dashboards.yml. Exits 1 where a target is not met. What evaluating the
rules costs: bench_scale. With the defaults it takes a quarter of an hour on two idle cores, and 2 GB of disk.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import blocks
from bench.started import started
from ops import servers
from tests.running import free_port

ROOT = Path(__file__).resolve().parents[1]
SLOWEST = 10
SHOWN = ("overview", "http", "llm", "database")  # what shows the service's instances
PANEL_SECONDS, DASHBOARD_SECONDS, TIMES_FASTER = 1.0, 8.0, 40.0
END = 1_700_000_000 // 7200 * 7200  # any time, at the edge of a block
# Grafana's steps, in seconds: the largest below each bound is taken.
STEPS = (15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600)
# Compaction would be measured, too; a slow query is to end, not to be refused.
MEASURED = ("--storage.tsdb.max-block-duration=2h", "--query.timeout=10m", "--query.max-samples=2000000000")
CHOICES = {"before": "15m"}


@dataclass(frozen=True)
class Panel:
    """Queries of a panel with the variables filled in: (PromQL, whether it is asked for one moment)."""

    dashboard: str
    title: str
    queries: tuple[tuple[str, bool], ...]
    step: int


def panels(dashboards: dict[str, Any], days: float) -> Iterator[Panel]:
    """All panels of dashboards (name -> JSON), for a time range of `days`."""
    for name, dashboard in dashboards.items():
        constants = {v["name"]: v["query"] for v in dashboard["templating"]["list"] if v["type"] == "constant"}
        for row in dashboard["panels"]:
            for panel in row.get("panels", []) if row["type"] == "row" else [row]:
                points = 1600 * panel["gridPos"]["w"] / 24
                wanted = days * 86400 / points
                step = max(step for step in STEPS if step <= max(wanted * 1.2, 15))
                queries = tuple(
                    (_filled(target["expr"], step, days, {**constants, **CHOICES}), bool(target.get("instant")))
                    for target in panel["targets"]
                )
                yield Panel(name, panel["title"], queries, step)


def _filled(expr: str, step: int, days: float, values: dict[str, str]) -> str:
    for name, value in values.items():
        expr = expr.replace(f"${name}", value)
    expr = expr.replace("$__rate_interval", f"{max(step + 15, 60)}s").replace("$__range", f"{days * 86400:.0f}s")
    expr = expr.replace("${__to:date:seconds}", str(END)).replace("$__interval_ms", str(step * 1000))
    return re.sub(r"\$(?!\{?\d)\{?\w+\}?", ".*", expr.replace("$__interval", f"{step}s"))


def raw(dashboards: dict[str, Any]) -> dict[str, Any]:
    """The same dashboards without the records: what each stands for is computed from the raw series."""
    text = json.dumps(dashboards)
    text = re.sub(r"\((?:job|instance)\w*:[\w:]+\{[^}]*\}(?: or (?:job|instance)\w*:[\w:]+\{[^}]*\})* or ", "(", text)
    return dict(json.loads(text.replace(', job!~\\"$instance\\"', "")))


def earlier() -> tuple[str, dict[str, Any]]:
    """What to compare with, and its dashboards."""
    now = {file.stem: json.loads(file.read_text()) for file in (ROOT / "grafana" / "dashboards").glob("*.json")}
    if not (revision := os.environ.get("BASELINE")):
        return "without records", raw(now)
    shown = {}
    for name in now:
        command = ["git", "show", f"{revision}:grafana/dashboards/{name}.json"]
        shown[name] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    return f"build {revision}", shown


@contextmanager
def prometheus(data: Path, *flags: str) -> Iterator[tuple[str, int]]:
    """A Prometheus over `data`, which scrapes and evaluates nothing; its address and process id."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        # The defaults: an empty file would set gogc to 0, which is to collect garbage all the time.
        config.write_text("global: {}\n")
        kept = ("--storage.tsdb.retention.time=100y", "--storage.tsdb.retention.size=0")  # no limit
        server = servers.prometheus(config, data, free_port(), flags=(*kept, *flags))
        with started(server) as pid:
            yield server.url, pid


def build(series: list[blocks.Series], days: float, interval: int, data: Path) -> None:
    """A Prometheus' folder `data` with `series` up to END: blocks, and the last hours in its log."""
    with prometheus(data, "--web.enable-remote-write-receiver", "--storage.tsdb.max-block-duration=18h") as (url, _):
        blocks.load(series, END - int(days * 86400), END, interval, f"{url}/api/v1/write")
        while _head_hours(url) > 3.1:  # the rest becomes a block within a minute
            time.sleep(1)


def _head_hours(url: str) -> float:
    with urllib.request.urlopen(f"{url}/api/v1/status/tsdb") as answer:
        head = json.load(answer)["data"]["headStats"]
    return float(head["maxTime"] - head["minTime"]) / 3.6e6


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds(url: str, pid: int, panel: Panel, days: float) -> float:
    """Prometheus' CPU time for a panel's queries.

    Raises:
        SystemExit: Prometheus refuses a query.
    """
    started = cpu_seconds(pid)
    for expr, instant in panel.queries:
        times = {"time": END} if instant else {"start": END - int(days * 86400), "end": END, "step": panel.step}
        body = urllib.parse.urlencode({"query": expr, **times}).encode()
        try:
            with urllib.request.urlopen(
                f"{url}/api/v1/query{'' if instant else '_range'}", body, timeout=900
            ) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{panel.dashboard}: {panel.title}: {error.read().decode()[:300]}") from None
    return cpu_seconds(pid) - started


def measure(server: tuple[str, int], dashboards: dict[str, Any], days: float) -> dict[tuple[str, str], float]:
    """(dashboard, panel) -> seconds."""
    shown = {name: dashboards[name] for name in SHOWN}
    return {(panel.dashboard, panel.title): seconds(*server, panel, days) for panel in panels(shown, days)}


def report(now: dict[tuple[str, str], float], before: dict[tuple[str, str], float], name: str) -> list[str]:
    """Prints both tables; the targets that are not met."""
    print(f"| the ten slowest panels | now | {name} |\n|---|---:|---:|")
    for key in sorted(now, key=lambda key: -now[key])[:SLOWEST]:
        old = f"{before[key]:.2f} s" if key in before else "-"
        print(f"| {key[0]}: {key[1]} | {now[key]:.2f} s | {old} |")
    print(f"\n| the ten slowest panels of: {name} | seconds |\n|---|---:|")
    for key in sorted(before, key=lambda key: -before[key])[:SLOWEST]:
        print(f"| {key[0]}: {key[1]} | {before[key]:.1f} |")
    print(f"\n| dashboard, all panels in series | now | {name} | times faster |\n|---|---:|---:|---:|")
    missed = [f"{key[0]}: {key[1]}" for key in now if now[key] > PANEL_SECONDS]
    for dashboard in sorted({dashboard for dashboard, _ in now}):
        own, old = (sum(v for key, v in times.items() if key[0] == dashboard) for times in (now, before))
        print(f"| {dashboard} | {own:.1f} s | {old:.1f} s | {old / own:.0f} |")
        missed += [f"{dashboard}, all panels"] if own > DASHBOARD_SECONDS else []
    gain = sum(before.values()) / sum(now.values())
    print(f"| all | {sum(now.values()):.1f} s | {sum(before.values()):.1f} s | {gain:.0f} |\n")
    return missed + ([f"{gain:.0f} times faster instead of {TIMES_FASTER:.0f}"] if gain < TIMES_FASTER else [])


def main() -> int:
    instances, days = int(os.environ.get("INSTANCES", "50")), float(os.environ.get("DAYS", "7"))
    interval = int(os.environ.get("INTERVAL", "15"))
    raw_series = [one for number in range(instances) for one in blocks.instance(number)]
    series = raw_series + list(blocks.records(raw_series))
    name, old = earlier()
    now = {file.stem: json.loads(file.read_text()) for file in (ROOT / "grafana" / "dashboards").glob("*.json")}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(os.environ.get("BLOCKS", folder))
        if not any(data.glob("*/meta.json")):
            build(series, days, interval, data)
        with prometheus(data, *MEASURED) as server:
            fast = measure(server, now, days)
            slow = measure(server, old, days)
    print(f"{instances} instances, {len(series)} series of which the rules record {len(series) - len(raw_series)},")
    print(f"{days:g} days, a sample every {interval} s. CPU time of Prometheus for a panel's queries, so that other")
    print("work on the machine does not count; on idle cores that is the time it takes, or less.\n")
    missed = report(fast, slow, name)
    verdict = "met" if not missed else "**missed**: " + "; ".join(missed[:5])
    targets = (
        f"a panel within {PANEL_SECONDS:g} s, a dashboard within {DASHBOARD_SECONDS:g} s, {TIMES_FASTER:g} times faster"
    )
    print(f"| target | |\n|---|---|\n| {targets} | {verdict} |")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
