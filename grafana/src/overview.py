"""Overview: is the service healthy, right now? The fourteen core metrics, the error budget, what is firing."""

from __future__ import annotations

from .common import (
    ALERTS_TABLE,
    BURN_LIMIT,
    IN,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    NODE,
    OUT,
    OUTCOME_COLOURS,
    POOL_COLOURS,
    SERVER,
    SLO_COLOURS,
    SLO_ERROR_RATIO,
    SLO_LATENCY,
    STATUS_COLOURS,
    TOKEN_COLOURS,
    active_users,
    dashboard,
    drill,
)
from .host import CARDS, CPU, DISKS, MEMORY, SPACE
from .model import Query, Row
from .panels import PER_MINUTE, Steps, below_zero, coloured, dashed, stat, timeseries
from .promql import by_status_class, mean, occurring, or_zero, quantile, ratio

REQUESTS = "rate(http_requests_total{@traffic}[@rate])"
ERRORS = 'rate(http_requests_total{@traffic, status_code=~"5.."}[@rate])'

STRIP = (
    stat(
        "Alerts",
        "Alerts of severity warning or critical that fire now.",
        Query(or_zero('count(ALERTS{alertstate="firing", severity=~"warning|critical"})')),
        unit="none",
        steps=Steps(1, 2),
        links=(drill("Monitoring"),),
    ),
    stat(
        "Error budget",
        "What is left of the error budget of 30 days, of the objective that is worse off: 100 % is untouched, at 0 the "
        "objective is missed.",
        Query('min(job_slo:error_budget_left:ratio{job=~"$job"}) or max(slo:objective:ratio) * 0 + 1'),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.5, 0.1),
        highest=1,
        lowest=None,
        no_value="no rules",
        links=(drill("HTTP"),),
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
        "Response p95",
        "95 of 100 requests are answered within this time. Without /chat, which waits for a model: see Model p95.",
        Query(quantile(0.95, "http_request_duration_seconds", matchers="@quick")),
        unit="s",
        steps=Steps(SLO_LATENCY / 2, SLO_LATENCY),
        no_value="idle",
        links=(drill("HTTP"),),
    ),
    stat(
        "Users in 5 min",
        "Distinct users seen in the last 5 minutes. Instances share users, so the largest one counts: a lower bound.",
        Query(or_zero('max(active_users{@app, window="5m"})')),
        unit="none",
        links=(drill("HTTP"),),
    ),
    stat(
        "Model p95",
        "95 of 100 calls of a language model are complete within this time.",
        Query(quantile(0.95, "llm_request_duration_seconds")),
        unit="s",
        steps=Steps(10, 30),
        no_value="idle",
        links=(drill("LLM"),),
    ),
    stat(
        "Tokens",
        "Tokens per minute, input and output of all models.",
        Query(or_zero("60 * sum(rate(llm_tokens_total{@app}[@rate]))")),
        unit=PER_MINUTE,
        links=(drill("LLM"),),
    ),
    stat(
        "Query p95",
        "95 of 100 queries are answered within this time.",
        Query(quantile(0.95, "db_query_duration_seconds")),
        unit="s",
        steps=Steps(0.1, 0.5),
        no_value="idle",
        links=(drill("Database"),),
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
        "Tx rate",
        "Commits and rollbacks per second, of all clients, as PostgreSQL counts them (average of 5 minutes).",
        Query("sum(instance:pg_transactions:rate5m{@db})"),
        no_value="no rules",
        unit="count:tx/s",
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
        Query(f"max({SPACE})"),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.8, 0.9),
        highest=1,
        links=(drill("Host"),),
    ),
)

OBJECTIVES = (
    timeseries(
        "Error budget left",
        "Availability: requests that are not answered with a 5xx status. Latency: requests that are answered in time. "
        "Over 30 days, or for as long as Prometheus remembers.",
        Query(
            'min by (slo) (job_slo:error_budget_left:ratio{job=~"$job"}) or max by (slo) (slo:objective:ratio) * 0 + 1',
            "{{slo}}",
        ),
        unit="percentunit",
        limit=0,
        lowest=None,
        highest=1,
        overrides=coloured(SLO_COLOURS),
        legend="names",
        links=(drill("HTTP"),),
        no_value="The recording rules are not loaded",
    ),
    timeseries(
        "Error budget burn",
        "How many times faster than sustainable the budget is spent, over the last hour: at 1 it lasts exactly 30 "
        "days, at 14.4 (the line) two of them are gone within an hour, and somebody is called.",
        Query(
            'max by (slo) (job_slo:error_budget_burn:rate1h{job=~"$job"}) or max by (slo) (slo:objective:ratio) * 0',
            "{{slo}}",
        ),
        unit="suffix:x",
        limit=BURN_LIMIT,
        soft_highest=BURN_LIMIT + 1,
        overrides=coloured(SLO_COLOURS),
        legend="names",
        links=(drill("HTTP"),),
        no_value="The recording rules are not loaded",
    ),
    ALERTS_TABLE.sized(8),
)

SERVICE = (
    timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(by_status_class(REQUESTS), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        legend="names",
        links=(drill("HTTP"),),
    ),
    timeseries(
        "Response time",
        "To the last byte of the response, average and percentiles, without /chat, which waits for a model. The line "
        "is the latency objective.",
        (
            Query(mean("http_request_duration_seconds", matchers="@quick"), "average"),
            Query(quantile(0.5, "http_request_duration_seconds", matchers="@quick"), "p50"),
            Query(quantile(0.95, "http_request_duration_seconds", matchers="@quick"), "p95"),
            Query(quantile(0.99, "http_request_duration_seconds", matchers="@quick"), "p99"),
        ),
        unit="s",
        log=True,
        limit=SLO_LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        legend="names",
        links=(drill("HTTP"),),
        no_value="No requests in this range",
    ),
    timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status, of the endpoints where that happened. The line is the "
        "objective: more than that spends the error budget faster than 30 days allow.",
        Query(
            occurring(
                ratio(ERRORS, REQUESTS, "endpoint"), 'http_requests_total{@traffic, status_code=~"5.."}', "endpoint"
            ),
            "{{endpoint}}",
        ),
        unit="percentunit",
        limit=SLO_ERROR_RATIO,
        legend="names",
        links=(drill("HTTP", "var-endpoint=${__field.labels.endpoint}"),),
    ),
    active_users("names", drill("HTTP")),
)

MODELS = (
    timeseries(
        "Token usage",
        "Tokens per second by direction. Input is what was sent to the models, output is what they wrote.",
        Query("sum by (type) (rate(llm_tokens_total{@app}[@rate]))", "{{type}}"),
        unit="count:tokens/s",
        stacked=True,
        overrides=coloured(TOKEN_COLOURS),
        legend="names",
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
        legend="names",
        links=(drill("LLM"),),
        no_value="No calls in this range",
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
        legend="names",
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
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        legend="names",
        links=(drill("Database"),),
        no_value="No queries in this range",
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
        legend="names",
        links=(drill("Database"),),
    ),
    timeseries(
        "Transaction rate",
        "Transactions per second as the application ends them (one that only read ends as a rollback), beside what "
        "PostgreSQL counts for all its clients.",
        (
            Query("sum by (outcome) (rate(db_transactions_total{@app}[@rate]))", "{{outcome}}"),
            Query("sum(instance:pg_transactions:rate5m{@db})", "PostgreSQL, average of 5 min"),
        ),
        unit="count:tx/s",
        stacked=True,
        overrides=(*coloured(OUTCOME_COLOURS), *dashed("PostgreSQL, average of 5 min")),
        legend="names",
        links=(drill("Database"),),
    ),
)

MACHINES = (
    timeseries(
        "CPU usage",
        "Busy share of all processors of each host.",
        Query(CPU, "{{instance}}"),
        unit="percentunit",
        highest=1,
        legend="names",
        links=(drill("Host"),),
    ),
    timeseries(
        "Memory usage",
        "Memory that is not available to programs, of each host.",
        Query(MEMORY, "{{instance}}"),
        unit="percentunit",
        highest=1,
        legend="names",
        links=(drill("Host"),),
    ),
    timeseries(
        "Disk throughput",
        "Bytes per second read from disks (up) and written to them (down).",
        (
            Query(f"sum(rate(node_disk_read_bytes_total{{@host, {DISKS}}}[@rate]))", "read"),
            Query(f"sum(rate(node_disk_written_bytes_total{{@host, {DISKS}}}[@rate]))", "written"),
        ),
        unit="Bps",
        lowest=None,
        overrides=(*coloured({"read": IN}), *below_zero("written", colour=OUT)),
        legend="names",
        links=(drill("Host"),),
    ),
    timeseries(
        "Network throughput",
        "Bytes per second received (up) and sent (down) by network cards.",
        (
            Query(f"sum(rate(node_network_receive_bytes_total{{@host, {CARDS}}}[@rate]))", "received"),
            Query(f"sum(rate(node_network_transmit_bytes_total{{@host, {CARDS}}}[@rate]))", "sent"),
        ),
        unit="Bps",
        lowest=None,
        overrides=(*coloured({"received": IN}), *below_zero("sent", colour=OUT)),
        legend="names",
        links=(drill("Host"),),
    ),
)

DASHBOARD = dashboard(
    "Overview",
    "Is the service healthy, right now? The four areas, the error budget, and what is firing.",
    variables=(JOB, INSTANCE, NODE, SERVER),
    rows=(
        Row("", (*STRIP[:6], *(panel.sized(3) for panel in STRIP[6:]))),
        Row("Objectives and alerts", tuple(panel.sized(8, 7) for panel in OBJECTIVES)),
        Row("Service", tuple(panel.sized(6, 7) for panel in SERVICE)),
        Row("Language models", tuple(panel.sized(8, 7) for panel in MODELS)),
        Row("Database", tuple(panel.sized(8, 7) for panel in DATABASE)),
        Row("Host", tuple(panel.sized(6, 7) for panel in MACHINES)),
    ),
)
