"""Overview: is the service healthy, right now? The fourteen core metrics, the error budget, what is firing."""

from __future__ import annotations

from .common import (
    IN,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    NODE,
    OUT,
    POOL_COLOURS,
    SERVER,
    SLO_ERROR_RATIO,
    SLO_LATENCY,
    STATUS_COLOURS,
    TOKEN_COLOURS,
    WINDOW_COLOURS,
    dashboard,
    drill,
)
from .model import Query, Row
from .panels import Steps, coloured, dashed, override_matching, stat, timeseries
from .promql import mean, observed, or_zero, quantile, ratio

CPU = '1 - avg by (instance) (rate(node_cpu_seconds_total{@host, mode="idle"}[@rate]))'
MEMORY = "1 - node_memory_MemAvailable_bytes{@host} / node_memory_MemTotal_bytes{@host}"
DISK = (
    '1 - node_filesystem_avail_bytes{@host, fstype!~"tmpfs|ramfs"}'
    ' / node_filesystem_size_bytes{@host, fstype!~"tmpfs|ramfs"}'
)
REQUESTS = "rate(http_requests_total{@app}[@rate])"
ERRORS = 'rate(http_requests_total{@app, status_code=~"5.."}[@rate])'

STRIP = (
    stat(
        "Firing alerts",
        "Alerts of severity warning or critical that fire now.",
        Query(or_zero('count(ALERTS{alertstate="firing", severity=~"warning|critical"})')),
        unit="none",
        steps=Steps(1, 2),
        links=(drill("Monitoring"),),
    ),
    stat(
        "Request rate",
        "Requests per second that the service answers, all endpoints.",
        Query(or_zero(f"sum({REQUESTS})")),
        unit="reqps",
        decimals=1,
        links=(drill("HTTP"),),
    ),
    stat(
        "Error rate",
        "Share of requests answered with a 5xx status. Orange from the objective on, red from ten times as much.",
        Query(ratio(ERRORS, REQUESTS)),
        unit="percentunit",
        decimals=2,
        steps=Steps(SLO_ERROR_RATIO, 10 * SLO_ERROR_RATIO),
        links=(drill("HTTP"),),
    ),
    stat(
        "Response time p95",
        "95 of 100 requests are answered within this time.",
        Query(observed(quantile(0.95, "http_request_duration_seconds"))),
        unit="s",
        steps=Steps(SLO_LATENCY / 2, SLO_LATENCY),
        no_value="idle",
        links=(drill("HTTP"),),
    ),
    stat(
        "Active users",
        "Distinct users seen in the last 5 minutes. Instances share users, so the largest one counts: a lower bound.",
        Query(or_zero('max(active_users{@app, window="5m"})')),
        unit="none",
        links=(drill("HTTP"),),
    ),
    stat(
        "Model response p95",
        "95 of 100 calls of a language model are complete within this time.",
        Query(observed(quantile(0.95, "llm_request_duration_seconds"))),
        unit="s",
        steps=Steps(10, 30),
        no_value="idle",
        links=(drill("LLM"),),
    ),
    stat(
        "Tokens per minute",
        "Input and output of all models.",
        Query(or_zero("60 * sum(rate(llm_tokens_total{@app}[@rate]))")),
        unit="short",
        decimals=0,
        links=(drill("LLM"),),
    ),
    stat(
        "Pool in use",
        "Connections that are checked out, of all that the application's pool may open.",
        Query(or_zero('sum(db_pool_connections{@app, state="used"}) / sum(db_pool_connections_max{@app})')),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.7, 0.9),
        highest=1,
        links=(drill("Database"),),
    ),
    stat(
        "Transactions",
        "Commits and rollbacks per second, as PostgreSQL counts them.",
        Query(
            or_zero(
                "sum(rate(pg_stat_database_xact_commit{@db}[@rate]))"
                " + sum(rate(pg_stat_database_xact_rollback{@db}[@rate]))"
            )
        ),
        unit="ops",
        decimals=1,
        links=(drill("Database"),),
    ),
    stat(
        "CPU",
        "Busy share of all processors, of the busiest host.",
        Query(f"max({CPU})"),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.7, 0.9),
        highest=1,
        links=(drill("Host"),),
    ),
    stat(
        "Memory",
        "Memory that is not available to programs, of the fullest host.",
        Query(f"max({MEMORY})"),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.8, 0.9),
        highest=1,
        links=(drill("Host"),),
    ),
    stat(
        "Disk",
        "Used space of the fullest file system.",
        Query(f"max({DISK})"),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.8, 0.9),
        highest=1,
        links=(drill("Host"),),
    ),
)

SERVICE = (
    timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(f'sum by (class) (label_replace({REQUESTS}, "class", "${{1}}xx", "status_code", "(.).."))', "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        links=(drill("HTTP"),),
    ),
    timeseries(
        "Response time",
        "To the last byte of the response, average and percentiles. The line is the latency objective.",
        (
            Query(mean("http_request_duration_seconds"), "average"),
            Query(quantile(0.5, "http_request_duration_seconds"), "p50"),
            Query(quantile(0.95, "http_request_duration_seconds"), "p95"),
            Query(quantile(0.99, "http_request_duration_seconds"), "p99"),
        ),
        unit="s",
        limit=SLO_LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("HTTP"),),
    ),
    timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status. The line is the objective: more than that spends the error "
        "budget faster than 30 days allow.",
        Query(ratio(ERRORS, REQUESTS, "endpoint"), "{{endpoint}}"),
        unit="percentunit",
        limit=SLO_ERROR_RATIO,
        links=(drill("HTTP", "var-endpoint=${__field.labels.endpoint}"),),
    ),
    timeseries(
        "Active users",
        "Distinct users seen in each window. Instances share users, so the largest one counts: a lower bound.",
        Query("max by (window) (active_users{@app})", "{{window}}"),
        unit="none",
        overrides=coloured(WINDOW_COLOURS),
        links=(drill("HTTP"),),
    ),
)

MODELS = (
    timeseries(
        "Token usage",
        "Tokens per second by direction. Input is what was sent to the models, output is what they wrote.",
        Query("sum by (type) (rate(llm_tokens_total{@app}[@rate]))", "{{type}}"),
        unit="short",
        stacked=True,
        overrides=coloured(TOKEN_COLOURS),
        links=(drill("LLM"),),
    ),
    timeseries(
        "Model response time",
        "Duration of calls of language models, to the end of the answer.",
        (
            Query(mean("llm_request_duration_seconds"), "average"),
            Query(quantile(0.5, "llm_request_duration_seconds"), "p50"),
            Query(quantile(0.95, "llm_request_duration_seconds"), "p95"),
        ),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("LLM"),),
    ),
    timeseries(
        "Prompt length",
        "Characters of the users' prompts: average, and the longest of the last minute.",
        (
            Query(mean("llm_prompt_length_characters"), "average"),
            Query("max(llm_prompt_length_characters_max{@app})", "maximum"),
        ),
        unit="short",
        overrides=coloured({"average": "text", "maximum": "red"}),
        links=(drill("LLM"),),
    ),
)

DATABASE = (
    timeseries(
        "Query time",
        "Duration of queries as the application feels them, average and percentiles.",
        (
            Query(mean("db_query_duration_seconds"), "average"),
            Query(quantile(0.5, "db_query_duration_seconds"), "p50"),
            Query(quantile(0.95, "db_query_duration_seconds"), "p95"),
            Query(quantile(0.99, "db_query_duration_seconds"), "p99"),
        ),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("Database"),),
    ),
    timeseries(
        "Connection pool",
        "Connections of the application's pool, and how many it may open at most.",
        (
            Query("sum by (state) (db_pool_connections{@app})", "{{state}}"),
            Query("sum(db_pool_connections_max{@app})", "limit"),
        ),
        unit="none",
        stacked=True,
        overrides=(*coloured(POOL_COLOURS), *dashed("limit")),
        links=(drill("Database"),),
    ),
    timeseries(
        "Transactions",
        "Transactions per second, as PostgreSQL counts them. A read that needs no commit ends as a rollback.",
        (
            Query("sum(rate(pg_stat_database_xact_commit{@db}[@rate]))", "commits"),
            Query("sum(rate(pg_stat_database_xact_rollback{@db}[@rate]))", "rollbacks"),
        ),
        unit="ops",
        stacked=True,
        overrides=coloured({"commits": "green", "rollbacks": "yellow"}),
        links=(drill("Database"),),
    ),
)

HOST = (
    timeseries(
        "CPU usage",
        "Busy share of all processors of each host.",
        Query(CPU, "{{instance}}"),
        unit="percentunit",
        width=6,
        highest=1,
        links=(drill("Host"),),
    ),
    timeseries(
        "Memory usage",
        "Memory that is not available to programs, of each host.",
        Query(MEMORY, "{{instance}}"),
        unit="percentunit",
        width=6,
        highest=1,
        links=(drill("Host"),),
    ),
    timeseries(
        "Disk throughput",
        "Bytes per second read from disks (up) and written to them (down).",
        (
            Query("sum by (instance) (rate(node_disk_read_bytes_total{@host}[@rate]))", "{{instance}} read"),
            Query("-sum by (instance) (rate(node_disk_written_bytes_total{@host}[@rate]))", "{{instance}} written"),
        ),
        unit="Bps",
        width=6,
        lowest=None,
        overrides=(
            override_matching(".* read", color={"mode": "fixed", "fixedColor": IN}),
            override_matching(".* written", color={"mode": "fixed", "fixedColor": OUT}),
        ),
        links=(drill("Host"),),
    ),
    timeseries(
        "Network throughput",
        "Bytes per second received (up) and sent (down), without loopback.",
        (
            Query(
                'sum by (instance) (rate(node_network_receive_bytes_total{@host, device!="lo"}[@rate]))',
                "{{instance}} received",
            ),
            Query(
                '-sum by (instance) (rate(node_network_transmit_bytes_total{@host, device!="lo"}[@rate]))',
                "{{instance}} sent",
            ),
        ),
        unit="Bps",
        width=6,
        lowest=None,
        overrides=(
            override_matching(".* received", color={"mode": "fixed", "fixedColor": IN}),
            override_matching(".* sent", color={"mode": "fixed", "fixedColor": OUT}),
        ),
        links=(drill("Host"),),
    ),
)

DASHBOARD = dashboard(
    "Overview",
    "Is the service healthy, right now? The four areas, the error budget, and what is firing.",
    variables=(JOB, INSTANCE, NODE, SERVER),
    rows=(
        Row("", STRIP),
        Row("Service", tuple(panel.sized(6) for panel in SERVICE)),
        Row("Language models", MODELS),
        Row("Database", DATABASE),
        Row("Host", HOST),
    ),
)
