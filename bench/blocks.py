"""Blocks of a Prometheus that has scraped many instances for many days, for bench_dashboards.

Each instance has the service's counters, histograms and gauges; each record of the rules has what follows from them.
All series have the same rhythm, so records are about what the rules would have made, and compress as real ones do.
"""

from __future__ import annotations

import itertools
import math
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.telemetry.http.metrics import DURATION_BUCKETS
from ops.programs import find
from prometheus.src import recorded

BLOCK = 18 * 3600  # seconds; one of the sizes that promtool makes
ENDPOINTS = (("GET", "/items"), ("POST", "/items"), ("GET", "/items/{item_id}"), ("POST", "/chat"))
QUERIES = ("item_list", "item_create", "user_by_key")
MODEL = {"provider": "openai", "model": "large"}
SECONDS = [str(0.08 * 2**n) for n in range(13)] + ["+Inf"]
SIZES = ["16.0", "64.0", "256.0", "1024.0", "4096.0", "16384.0", "65536.0", "262144.0", "1048576.0", "+Inf"]
HTTP = [*map(str, DURATION_BUCKETS), "+Inf"]
SQL = [str(bound) for bound in (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)]
Labels = dict[str, str]


@dataclass(frozen=True)
class Series:
    """One series: a counter that grows by `rate` a second, or (gauge) a value around `rate`."""

    name: str
    labels: Labels
    rate: float
    gauge: bool = False

    def text(self) -> str:
        labels = ",".join(f'{key}="{value}"' for key, value in self.labels.items())
        return f"{self.name}{{{labels}}}"


def _histogram(name: str, labels: Labels, rate: float, bounds: list[str]) -> Iterator[Series]:
    for number, bound in enumerate(bounds, 1):
        yield Series(f"{name}_bucket", {**labels, "le": bound}, rate * math.sqrt(number / len(bounds)))
    yield Series(f"{name}_sum", labels, rate / 10)
    yield Series(f"{name}_count", labels, rate)


def instance(number: int) -> Iterator[Series]:
    """What one instance of the service is scraped for, as far as the dashboards ask for it."""
    own = {"job": "app", "service": "sightline", "instance": f"10.0.0.{number}:8000"}
    pace = 1 + number / 100
    yield Series("up", own, 1, gauge=True)
    yield Series("app_info", {**own, "version": "1"}, 1, gauge=True)
    yield Series("process_start_time_seconds", own, 1_600_000_000, gauge=True)
    for window in ("1m", "5m", "15m", "1h"):
        yield Series("active_users", {**own, "window": window}, 20, gauge=True)
    for method, endpoint in ENDPOINTS:
        here = {**own, "method": method, "endpoint": endpoint}
        for status, share in (("200", 0.97), ("404", 0.02), ("500", 0.01)):
            yield Series("http_requests_total", {**here, "status_code": status}, share * pace)
        yield from _histogram("http_request_duration_seconds", here, pace, HTTP)
        yield from _histogram("http_response_start_seconds", here, pace, HTTP)
        yield Series("http_requests_in_progress", here, 3, gauge=True)
        yield Series("http_request_size_bytes_sum", here, 300 * pace)
        yield Series("http_response_size_bytes_sum", here, 900 * pace)
    failing = {**own, "method": "GET", "endpoint": "/items"}
    yield from _histogram("http_failed_request_duration_seconds", failing, 0.01 * pace, HTTP)
    yield Series("http_exceptions_total", {**failing, "exception": "ValueError"}, 0.001)
    model = {**own, **MODEL}
    for outcome in ("success", "error"):
        called = {**model, "operation": "chat", "outcome": outcome}
        yield Series("llm_requests_total", called, 0.2 if outcome == "success" else 0.01)
    yield from _histogram(
        "llm_request_duration_seconds", {**model, "operation": "chat", "outcome": "success"}, 0.2, SECONDS
    )
    yield from _histogram("llm_time_to_first_token_seconds", model, 0.2, SECONDS)
    yield from _histogram("llm_time_per_output_token_seconds", model, 0.2, SECONDS)
    yield from _histogram("llm_prompt_length_characters", model, 0.2, SIZES)
    yield Series("llm_prompt_length_characters_max", model, 900, gauge=True)
    yield Series("llm_requests_in_progress", model, 2, gauge=True)
    for kind in ("input", "output"):
        yield Series("llm_tokens_total", {**model, "type": kind}, 100)
        yield from _histogram("llm_request_tokens", {**model, "type": kind}, 0.2, SIZES)
    yield Series("llm_cost_usd_total", model, 0.001)
    yield Series("llm_errors_total", {**model, "error_type": "timeout"}, 0.01)
    yield Series("llm_finish_reasons_total", {**model, "reason": "stop"}, 0.2)
    yield Series("llm_usage_missing_total", {**model, "reason": "cancelled"}, 0.01)
    pool = {**own, "pool": "main"}
    for query in QUERIES:
        named = {**pool, "operation": "SELECT", "query_name": query}
        yield from _histogram("db_query_duration_seconds", named, pace, [*SQL, "+Inf"])
    for metric in ("db_pool_checkout_wait_seconds", "db_pool_connection_use_seconds", "db_commit_duration_seconds"):
        yield from _histogram(metric, pool, pace, [*SQL, "+Inf"])
    for outcome in ("commit", "rollback"):
        yield Series("db_transactions_total", {**pool, "outcome": outcome}, pace)
    yield Series("db_query_errors_total", {**pool, "operation": "SELECT", "sqlstate_class": "08"}, 0.001)
    for state in ("used", "idle"):
        yield Series("db_pool_connections", {**pool, "state": state}, 4, gauge=True)
    yield Series("db_pool_connections_max", pool, 10, gauge=True)


def records(raw: list[Series]) -> Iterator[Series]:
    """What the rules record of `raw`: those of the dashboards, and the ones that the dashboards read beside them."""
    by_name: dict[str, list[Series]] = {}
    for series in raw:
        by_name.setdefault(series.name, []).append(series)
    for record in itertools.chain.from_iterable(recorded.GROUPS.values()):
        metric = re.findall(r"([a-z_]+)\{%\}", record.expr)[0]
        if dropped := re.search(r"without \(([^)]*)\)", record.expr):
            sums: dict[tuple[tuple[str, str], ...], float] = {}
            for series in by_name.get(metric, ()):
                left = tuple(item for item in series.labels.items() if item[0] not in dropped[1].split(", "))
                sums[left] = sums.get(left, 0) + series.rate
            yield from (Series(record.name, dict(left), rate, gauge=True) for left, rate in sums.items())
    service = {"job": "app", "service": "sightline"}
    for slo in ("availability", "latency"):
        for name in ("remaining:ratio", "left:ratio", "burn:rate1h", "burn:rate6h"):
            yield Series(f"job_slo:error_budget_{name}", {**service, "slo": slo}, 0.9, gauge=True)
        for name in ("sightline:slo_objective:ratio", "slo:objective:ratio"):
            yield Series(name, {"slo": slo}, 0.99, gauge=True)
    for _, endpoint in ENDPOINTS[1:]:
        for name, rate in (("http_requests", 100.0), ("http_errors", 1.0), ("http_slow", 1.0)):
            yield Series(f"job_endpoint:{name}:rate5m", {**service, "endpoint": endpoint}, rate, gauge=True)


def write(series: list[Series], start: int, end: int, interval: int, file: Path) -> None:
    """Samples from `start` until before `end`, as OpenMetrics text."""
    lines = "".join(f"{one.text()} %{'.4f' if one.gauge else 'd'} AT\n" for one in series)
    rates = [(one.rate, one.gauge) for one in series]
    with open(file, "w") as text:
        for second in range(start, end, interval):
            wave = math.sin(second / 7000)
            grown, now = second % 10**8 - 3000 * math.cos(second / 7000), 1 + 0.3 * wave
            values = tuple(rate * (now if gauge else grown) for rate, gauge in rates)
            text.write((lines % values).replace(" AT\n", f" {second}\n"))
        text.write("# EOF\n")


def build(series: list[Series], start: int, end: int, interval: int, folder: Path) -> None:
    """Blocks of `series` in `folder`, one process for text and one for blocks at a time.

    Raises subprocess.CalledProcessError with promtool's words where it fails.
    """
    promtool = find("promtool")["promtool"]

    def block(begin: int) -> None:
        file = folder / f"{begin}.txt"
        write(series, max(begin, start), min(begin + BLOCK, end), interval, file)
        command = [promtool, "tsdb", "create-blocks-from", "openmetrics", f"--max-block-duration={BLOCK}s", "--quiet"]
        subprocess.run([*command, file, folder], check=True, capture_output=True, text=True)
        file.unlink()

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(block, range(start - start % BLOCK, end, BLOCK)))
