"""What Prometheus records for the dashboards: `make generate` writes prometheus/rules/dashboards.yml from this.

A percentile over raw buckets reads each bucket of each instance again for every point of a graph; with 50 instances and
7 days that takes most of a minute. Recorded once for all instances together, it takes a tenth of a second.

Names follow `level:metric:operations`; the level names the labels that remain besides those of the target (job,
service ...). Rates are per second over 5 minutes, the window of the dashboards that show them, or over a minute for the
Load test dashboard, which changes faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Selects raw series only if instances are chosen: All (`.*`) excludes every job; no instance has the name of a job.
# (For a label that no series has, `!~".*"` is true in VictoriaMetrics, false in Prometheus.)
CHOSEN = 'job!~"$instance"'


@dataclass(frozen=True)
class Recorded:
    """A recorded series, and its expression over raw series.

    name: of the series. It has no label `instance`, so `instance=~"$instance"` finds it while All (`.*`) is chosen.
    expr: PromQL that makes it, with `%` in place of matchers.
    only: matchers of the raw series that are always there.
    follows: PromQL of the rule, where a record before it in its group has read the raw series already.
    """

    name: str
    expr: str
    only: str = ""
    follows: str = ""

    def of(self, *matchers: str) -> str:
        """The series with these matchers; if instances are chosen, the same from the raw series of these instances.

        matchers: of labels that the recorded series has, and `instance=~"$instance"`; several are alternatives.
        """
        selected = [f"{self.name}{{{one}}}" for one in matchers]
        raw = [self.expr.replace("%", ", ".join(part for part in (one, self.only, CHOSEN) if part)) for one in matchers]
        return f"({' or '.join(selected + raw)})"

    @property
    def rule(self) -> str:
        """PromQL of the recording rule."""
        return self.follows or self.expr.replace("{%}", f"{{{self.only}}}" if self.only else "")


@dataclass(frozen=True)
class Histogram:
    """The recorded buckets and the recorded sum of a histogram."""

    buckets: Recorded
    sum: Recorded

    def count(self, *matchers: str) -> str:
        """Observations per second."""
        return self.buckets.of(*(f'{one}, le="+Inf"' for one in matchers))


def rate(level: str, counter: str, *without: str, name: str = "", only: str = "", window: str = "5m") -> Recorded:
    """Events per second of all instances together, without the labels `without`."""
    name = f"{level}:{name or counter.removesuffix('_total')}:rate{window}"
    return Recorded(name, f"sum without ({', '.join(('instance', *without))}) (rate({counter}{{%}}[{window}]))", only)


def histogram(level: str, metric: str, *without: str, only: str = "", window: str = "5m") -> Histogram:
    """Buckets and sum of a histogram of all instances together."""
    buckets, total = (f"{metric}_{part}" for part in ("bucket", "sum"))
    return Histogram(
        rate(level, buckets, *without, only=only, window=window), rate(level, total, *without, only=only, window=window)
    )


def difference(all_: str, failures: str) -> str:
    """The rates of all minus those of failures, which have the same labels, or do not exist before the first failure.

    Where all fail, it would be 0 but for rounding, or below where a series is younger than its window: percentiles of
    buckets that shrink towards longer times, and averages of no requests.
    """
    both = f'sum without (failed) ({all_} or label_replace(-{failures}, "failed", "1", "", ""))'
    return f"clamp_min(round({both}, 1 / 2^30), 0)"


def successes(level: str, metric: str, failed: str, *without: str, window: str = "5m") -> Histogram:
    """Buckets and sum of a histogram without those of its failures, as failing fast is not being fast."""

    def part(suffix: str) -> Recorded:
        all_, failures = (
            f"sum without ({', '.join(('instance', *without))}) (rate({name}_{suffix}{{%}}[{window}]))"
            for name in (metric, failed)
        )
        return Recorded(f"{level}:{metric}_{suffix}:rate{window}", difference(all_, failures))

    return Histogram(part("bucket"), part("sum"))


def otherwise(first: Histogram, second: Histogram) -> Histogram:
    """`first`, under its names, and `second`, recorded before it, for label sets that `first` does not have."""

    def part(one: Recorded, other: Recorded) -> Recorded:
        return Recorded(one.name, f"{one.expr} or {other.expr}", one.only, f"{one.rule} or {other.name}")

    return Histogram(part(first.buckets, second.buckets), part(first.sum, second.sum))


def following(histogram: Histogram, detailed: Histogram, *without: str) -> Histogram:
    """`histogram`, whose rules read `detailed`, recorded before it, which has the labels `without` as well."""

    def part(one: Recorded, other: Recorded) -> Recorded:
        return replace(one, follows=f"sum without ({', '.join(without)}) ({other.name})")

    return Histogram(part(histogram.buckets, detailed.buckets), part(histogram.sum, detailed.sum))


def gauge(level: str, metric: str, how: str, *without: str, only: str = "") -> Recorded:
    """A gauge of all instances together; how: sum or max."""
    name = f"{level}:{metric}:{how}"
    return Recorded(name, f"{how} without ({', '.join(('instance', *without))}) ({metric}{{%}})", only)


ALIVE = gauge("job", "app_info", "max")  # exists while an instance responds: distinguishes 0 from no data

# HTTP
_DURATION = ("http_request_duration_seconds", "http_failed_request_duration_seconds")
_START = ("http_response_start_seconds", "http_failed_response_start_seconds")
RESPONSE = successes("job_endpoint", *_DURATION, "method")
# Prometheus keeps the start of the response for streaming endpoints only (metric_relabel_configs of the job `app`):
# other endpoints respond when they are done, so their duration is used.
TTFB = otherwise(successes("job_endpoint", *_START, "method"), RESPONSE)
REQUESTS = rate("job_endpoint_status", "http_requests_total", "method")
IN_PROGRESS = gauge("job_endpoint", "http_requests_in_progress", "sum", "method")
RECEIVED = rate("job_endpoint", "http_request_size_bytes_sum", "method")
SENT = rate("job_endpoint", "http_response_size_bytes_sum", "method")
ACTIVE_USERS = gauge("job_window", "active_users", "max")  # instances share users
# With the label `instance`, of the endpoints that count for the objectives.
REQUESTS_BY_INSTANCE = Recorded(
    "instance:http_requests:rate5m",
    "sum without (method, endpoint, status_code)"
    " (rate(http_requests_total{%}[5m]) and on (job, endpoint) job_endpoint:http_requests:rate5m)",
)


# LLM
_MODEL = "job_model"
CALL = histogram(_MODEL, "llm_request_duration_seconds", "operation", "outcome", only='outcome="success"')
TTFT = histogram(_MODEL, "llm_time_to_first_token_seconds")
TPOT = histogram(_MODEL, "llm_time_per_output_token_seconds")
PROMPT = histogram(_MODEL, "llm_prompt_length_characters")
LONGEST_PROMPT = gauge(_MODEL, "llm_prompt_length_characters_max", "max")
TOKENS_PER_CALL = histogram("job_model_type", "llm_request_tokens")
CALLS = rate("job_model_outcome", "llm_requests_total", "operation")
TOKENS = rate("job_model_type", "llm_tokens_total")
TOKEN_DETAILS = rate("job_model_detail", "llm_token_details_total")
COST = rate(_MODEL, "llm_cost_usd_total")
LLM_ERRORS = rate("job_model_error", "llm_errors_total")
RETRIES = rate("job_model_reason", "llm_retries_total")
FINISH_REASONS = rate("job_model_reason", "llm_finish_reasons_total")
USAGE_MISSING = rate("job_model_reason", "llm_usage_missing_total")
UNPRICED = rate(_MODEL, "llm_unpriced_requests_total")
CALLS_IN_PROGRESS = gauge(_MODEL, "llm_requests_in_progress", "sum")

# Database, as the application sees it
_POOL = "job_pool"
QUERY_BY_NAME = histogram("job_pool_query", "db_query_duration_seconds", "operation")
QUERY = following(histogram(_POOL, "db_query_duration_seconds", "operation", "query_name"), QUERY_BY_NAME, "query_name")
QUERY_P95 = Recorded(
    "job_pool_query:db_query_duration_seconds:p95_rate5m",
    f"histogram_quantile(0.95, {QUERY_BY_NAME.buckets.name}) >= 0",
)
QUERIES = Recorded("job_pool_query:db_queries:rate5m", f'sum without (le) ({QUERY_BY_NAME.buckets.name}{{le="+Inf"}})')
QUERY_ERRORS = rate("job_pool_sqlstate", "db_query_errors_total", "operation")
TRANSACTIONS = rate("job_pool_outcome", "db_transactions_total")
COMMIT = histogram(_POOL, "db_commit_duration_seconds")
CHECKOUT_WAIT = histogram(_POOL, "db_pool_checkout_wait_seconds")
HOLD_TIME = histogram(_POOL, "db_pool_connection_use_seconds")
CHECKOUT_TIMEOUTS = rate(_POOL, "db_pool_checkout_timeouts_total")
INVALIDATIONS = rate("job_pool_kind", "db_pool_invalidations_total")
CONNECTIONS = gauge("job_pool_state", "db_pool_connections", "sum")
CONNECTION_LIMIT = gauge(_POOL, "db_pool_connections_max", "sum")

# Load test: the service's responses, over one minute. Without queries, whose buckets are most of all series.
RESPONSE_1M = successes("job_endpoint", *_DURATION, "method", window="1m")
REQUESTS_1M = rate("job_endpoint_status", "http_requests_total", "method", window="1m")
CALL_1M = histogram(
    "job",
    "llm_request_duration_seconds",
    "provider",
    "model",
    "operation",
    "outcome",
    only='outcome="success"',
    window="1m",
)

# Prometheus 3 shows a warning for rate() of a counter whose name does not end in _total, on every panel with it.
EXPORTED = (
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    "pg_stat_database_blks_hit",
    "pg_stat_database_blks_read",
    "pg_stat_database_tup_returned",
    "pg_stat_database_tup_fetched",
    "pg_stat_database_tup_inserted",
    "pg_stat_database_tup_updated",
    "pg_stat_database_tup_deleted",
    "pg_stat_database_deadlocks",
    "pg_stat_database_conflicts",
    "pg_stat_database_temp_bytes",
    "pg_stat_user_tables_seq_tup_read",
    "pg_stat_archiver_archived_count",
    "pg_stat_archiver_failed_count",
    "node_vmstat_oom_kill",
    "node_vmstat_pgmajfault",
    "node_vmstat_pswpin",
    "node_vmstat_pswpout",
    "node_netstat_Tcp_OutSegs",
    "node_netstat_Tcp_RetransSegs",
)


def exported(counter: str) -> str:
    """The recorded name of an exporter's counter whose own name does not end in `_total`."""
    return f"instance:{counter.lower()}:exported_total"


DASHBOARDS = (
    # HTTP
    ALIVE,
    RESPONSE.buckets,
    RESPONSE.sum,
    TTFB.buckets,
    REQUESTS,
    REQUESTS_BY_INSTANCE,
    IN_PROGRESS,
    RECEIVED,
    SENT,
    ACTIVE_USERS,
    # LLM
    CALL.buckets,
    CALL.sum,
    TTFT.buckets,
    TPOT.buckets,
    TPOT.sum,
    PROMPT.buckets,
    PROMPT.sum,
    LONGEST_PROMPT,
    TOKENS_PER_CALL.buckets,
    TOKENS_PER_CALL.sum,
    CALLS,
    TOKENS,
    TOKEN_DETAILS,
    COST,
    LLM_ERRORS,
    RETRIES,
    FINISH_REASONS,
    USAGE_MISSING,
    UNPRICED,
    CALLS_IN_PROGRESS,
    # Database
    QUERY_BY_NAME.buckets,
    QUERY_BY_NAME.sum,
    QUERY_P95,
    QUERIES,
    QUERY.buckets,
    QUERY.sum,
    QUERY_ERRORS,
    TRANSACTIONS,
    COMMIT.buckets,
    COMMIT.sum,
    CHECKOUT_WAIT.buckets,
    CHECKOUT_WAIT.sum,
    HOLD_TIME.buckets,
    HOLD_TIME.sum,
    CHECKOUT_TIMEOUTS,
    INVALIDATIONS,
    CONNECTIONS,
    CONNECTION_LIMIT,
    # Load test
    RESPONSE_1M.buckets,
    RESPONSE_1M.sum,
    REQUESTS_1M,
    CALL_1M.buckets,
)
COUNTERS = tuple(Recorded(exported(counter), f"{counter}{{%}}") for counter in EXPORTED)
GROUPS = (("dashboards", "30s", DASHBOARDS), ("exported-counters", "", COUNTERS))
"""Rule groups: name, evaluation interval if it is not the default, recorded series."""

HEAD = """\
# Generated by `make generate` from prometheus/src/recorded.py. Series for the dashboards, aggregated over all
# instances, since percentiles over the raw buckets of many instances take a minute; and counters of exporters under
# names that end in _total, without which Prometheus 3 shows a warning for each rate. Not for dashboards only:
# recording.yml and database.yml use series of this file, and DbQueriesSlow and DbQueryErrors cannot fire without it.
# Evaluated every 30 s, as these rules are the most expensive; the shortest of their windows is a minute.
"""


def rules_file() -> str:
    """The text of prometheus/rules/dashboards.yml."""
    lines = [HEAD + "groups:"]
    for name, interval, records in GROUPS:
        lines += [f"  - name: {name}", *([f"    interval: {interval}"] if interval else []), "    rules:"]
        for record in records:
            lines += [f"      - record: {record.name}", f"        expr: {record.rule}"]
    return "\n".join(lines) + "\n"
