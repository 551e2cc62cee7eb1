"""The fourteen core metrics as PromQL, and what a plausible answer is while the service has something to do.

Used against the native stack (tests/prometheus) and the containers (tests/ops/docker).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

WINDOW = "1m"  # four scrapes of the stack's 15 s


@dataclass(frozen=True)
class Query:
    """An expression with exactly one series in its answer, more than `above` and at most `most`."""

    row: str
    what: str
    expression: str
    above: float = 0
    most: float = inf

    def plausible(self, value: float) -> bool:
        return self.above < value <= self.most  # false for NaN, too


def _average(histogram: str) -> str:
    return f"sum(rate({histogram}_sum[{WINDOW}])) / sum(rate({histogram}_count[{WINDOW}]))"


def _percentile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket[{WINDOW}])))"


_REQUESTS = f'sum(rate(http_requests_total{{job="app"}}[{WINDOW}]))'
_ERRORS = f'sum(rate(http_requests_total{{job="app", status_code=~"5.."}}[{WINDOW}]))'
_IDLE = f'avg(rate(node_cpu_seconds_total{{mode="idle"}}[{WINDOW}]))'
_FREE = 'node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|squashfs|overlay"}'
_SIZE = 'node_filesystem_size_bytes{fstype!~"tmpfs|ramfs|squashfs|overlay"}'

QUERIES = (
    Query("CPU", "% busy", f"100 * (1 - {_IDLE})", most=100),
    Query("memory", "% used", "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)", most=100),
    Query("disk", "% used of the fullest", f"max(100 * (1 - {_FREE} / ({_SIZE} > 0)))", most=100),
    Query("network", "bytes/s received", f"sum(rate(node_network_receive_bytes_total[{WINDOW}]))"),
    Query("network", "bytes/s sent", f"sum(rate(node_network_transmit_bytes_total[{WINDOW}]))"),
    Query("request rate", "requests/s", _REQUESTS, most=10_000),
    Query("response time", "seconds, average", _average("http_request_duration_seconds"), most=60),
    Query("response time", "seconds, p50", _percentile(0.5, "http_request_duration_seconds"), most=60),
    Query("response time", "seconds, p95", _percentile(0.95, "http_request_duration_seconds"), most=60),
    Query("response time", "seconds, p99", _percentile(0.99, "http_request_duration_seconds"), most=60),
    Query("error rate", "% of requests", f"100 * (({_ERRORS}) or vector(0)) / {_REQUESTS}", above=-1, most=100),
    Query("concurrent users", "seen in 5 minutes", 'max(active_users{window="5m"})', most=10_000),
    Query("LLM token usage", "tokens/s in", f'sum(rate(llm_tokens_total{{type="input"}}[{WINDOW}]))'),
    Query("LLM token usage", "tokens/s out", f'sum(rate(llm_tokens_total{{type="output"}}[{WINDOW}]))'),
    Query("model response time", "seconds, average", _average("llm_request_duration_seconds"), most=60),
    Query("model response time", "seconds, p95", _percentile(0.95, "llm_request_duration_seconds"), most=60),
    Query("prompt length", "characters, average", _average("llm_prompt_length_characters"), most=100_000),
    Query("prompt length", "characters, maximum", f"max(max_over_time(llm_prompt_length_characters_max[{WINDOW}]))"),
    Query("database query time", "seconds, average", _average("db_query_duration_seconds"), most=5),
    Query("database query time", "seconds, p95", _percentile(0.95, "db_query_duration_seconds"), most=10),
    Query("connection pool", "connections open", "sum(db_pool_connections)", most=100),
    Query(
        "connection pool",
        "% of the limit open",
        "100 * sum(db_pool_connections) / sum(db_pool_connections_max)",
        most=100,
    ),
    Query(
        "transaction rate",
        "transactions/s",
        f"sum(rate(pg_stat_database_xact_commit[{WINDOW}])) + sum(rate(pg_stat_database_xact_rollback[{WINDOW}]))",
    ),
)
