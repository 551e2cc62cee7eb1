"""The data of a Prometheus that has scraped many instances for many days, for bench_dashboards.

Each instance has the service's counters, histograms and gauges; each record of the rules has what follows from them.
All series have the same rhythm, so records are about what the rules would have made, and compress as real ones do.
"""

from __future__ import annotations

import math
import re
import struct
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.telemetry.database import metrics as database
from app.telemetry.http.metrics import DURATION_BUCKETS
from app.telemetry.llm import metrics as llm
from prometheus.src import recorded

ENDPOINTS = (("GET", "/items"), ("POST", "/items"), ("GET", "/items/{item_id}"), ("POST", "/chat"))
QUERIES = ("item_list", "item_create", "user_by_key")
MODEL = {"provider": "openai", "model": "large"}
SECONDS = [*map(str, llm.DURATION._upper_bounds[:-1]), "+Inf"]
SIZES = [*map(str, llm.REQUEST_TOKENS._upper_bounds[:-1]), "+Inf"]
HTTP = [*map(str, DURATION_BUCKETS), "+Inf"]
SQL = [*map(str, database.BUCKETS), "+Inf"]
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
        yield from _histogram("db_query_duration_seconds", named, pace, SQL)
    for metric in ("db_pool_checkout_wait_seconds", "db_pool_connection_use_seconds", "db_commit_duration_seconds"):
        yield from _histogram(metric, pool, pace, SQL)
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
    for record in (*recorded.DASHBOARDS, *recorded.COUNTERS):
        read = re.search(r"\w+(?=\{%\})|\w+:\w+:\w+", record.expr)  # raw series, or those of a record before it
        assert read, record
        dropped = re.findall(r"\w+", " ".join(re.findall(r"without \(([^)]*)\)", record.expr[: read.start()])))
        if "histogram_quantile" in record.expr:
            dropped.append("le")
        sums: dict[tuple[tuple[str, str], ...], float] = {}
        for series in by_name.get(read[0], ()):
            left = tuple(item for item in series.labels.items() if item[0] not in dropped)
            sums[left] = sums.get(left, 0) + series.rate
        by_name[record.name] = [Series(record.name, dict(left), rate, gauge=True) for left, rate in sums.items()]
        yield from by_name[record.name]
    service = {"job": "app", "service": "sightline"}
    for slo in ("availability", "latency"):
        for name in ("remaining:ratio", "left:ratio", "burn:rate1h", "burn:rate6h"):
            yield Series(f"job_slo:error_budget_{name}", {**service, "slo": slo}, 0.9, gauge=True)
        for name in ("sightline:slo_objective:ratio", "slo:objective:ratio"):
            yield Series(name, {"slo": slo}, 0.99, gauge=True)
        for name, rate in (("requests", 500.0), ("bad_requests", 0.1)):
            for window in ("1m", "5m"):
                yield Series(f"job_slo:{name}:rate{window}", {**service, "slo": slo}, rate, gauge=True)
    for _, endpoint in ENDPOINTS[1:]:
        for name, rate in (("http_requests", 100.0), ("http_errors", 1.0), ("http_slow", 1.0)):
            yield Series(f"job_endpoint:{name}:rate5m", {**service, "endpoint": endpoint}, rate, gauge=True)


def load(series: list[Series], start: int, end: int, interval: int, write_url: str) -> None:
    """Sends samples from `start` until before `end` to the remote-write receiver of a Prometheus, an hour at a time.

    Sixty times faster than text for promtool: no sample is formatted or parsed.
    Raises urllib.error.HTTPError where the receiver refuses some.
    """
    encoded = [(_labels(one), one.rate, one.gauge) for one in series]
    headers = {
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    for hour in range(start, end, 3600):
        times = list(range(hour, min(hour + 3600, end), interval))
        for first in range(0, len(encoded), 500):
            content = _snappy(_write_request(times, encoded[first : first + 500]))
            request = urllib.request.Request(write_url, content, headers)
            urllib.request.urlopen(request, timeout=600).close()


# The wire format of remote write 1.0: https://prometheus.io/docs/specs/prw/remote_write_spec/, protobuf in snappy.
def _write_request(times: list[int], series: Iterable[tuple[bytes, float, bool]]) -> bytes:
    """message WriteRequest { repeated TimeSeries timeseries = 1; }, its samples patched into a template."""
    grown = [second % 10**8 - 3000 * math.cos(second / 7000) for second in times]
    waved = [1 + 0.3 * math.sin(second / 7000) for second in times]
    stamps = [b"\x10" + _varint(second * 1000) for second in times]  # all of one length
    template = b"".join(_field(2, b"\x09" + bytes(8) + stamp) for stamp in stamps)
    sample = len(template) // len(times)
    pack = struct.Struct(f"<{len(times)}d").pack
    encoded = []
    for labels, rate, gauge in series:
        values = pack(*(rate * now for now in waved)) if gauge else pack(*(float(int(rate * count)) for count in grown))
        samples = bytearray(template)
        for byte in range(8):  # behind the sample's key and length and the value's key
            samples[3 + byte :: sample] = values[byte::8]
        encoded.append(_field(1, labels + samples))
    return b"".join(encoded)


def _labels(series: Series) -> bytes:
    labels = sorted({"__name__": series.name, **series.labels}.items())
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels)


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field with a length: string, bytes or message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _snappy(content: bytes) -> bytes:
    """A valid snappy block which compresses nothing: a single literal."""
    return _varint(len(content)) + b"\xfc" + struct.pack("<I", len(content) - 1) + content
