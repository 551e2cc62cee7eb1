"""Overview: is the service healthy, right now? The fourteen core metrics, the error budget, what is firing."""

from __future__ import annotations

from .common import (
    ALERTS_TABLE,
    BURN_LIMIT,
    ERROR_STEPS,
    IGNORED,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    NODE,
    OBJECTIVE_LINE,
    OUTCOME_COLOURS,
    POOL_COLOURS,
    SERVER,
    SLO_COLOURS,
    STATUS_COLOURS,
    STREAMING,
    TOKEN_COLOURS,
    active_users,
    average_and_percentiles,
    dashboard,
    drill,
    firing_alerts,
    objective,
    response_p95,
    response_time,
)
from .database import PER_CHECKOUT, pool_in_use, query_p95
from .host import cpu, cpu_by_host, disk, disk_throughput, memory, memory_by_host, network_throughput
from .http import error_ratio
from .llm import DURATION, model_p95
from .model import Query, Row
from .panels import PER_MINUTE, Steps, coloured, dashed, stat, timeseries
from .promql import by_status_class, mean, occurring, or_zero, ratio, transactions

REQUESTS = "rate(http_requests_total{@traffic}[@rate])"
ANSWERED = '@app, outcome="success"'
ERRORS = 'rate(http_requests_total{@traffic, status_code=~"5.."}[@rate])'

STRIP = (
    stat(
        "Instances up",
        "Share of the service's instances that answer Prometheus, of those that did within the last 30 days. While one "
        "is down, its numbers are missing everywhere below.",
        Query("avg(up{@app} and on (job, instance) last_over_time(app_info{@app}[30d] @ end()))"),
        unit="percentunit",
        decimals=0,
        steps=Steps(1, 0.5),
        highest=1,
        no_value="none known",
        links=(drill("Monitoring"),),
    ),
    *firing_alerts(drill("Monitoring")),
    stat(
        "Error budget",
        "What is left of the error budget of 30 days, of the objective that is worse off: 100 % is untouched, at 0 the "
        "objective is missed.",
        Query('min(job_slo:error_budget_left:ratio{job=~"$job"}) or max(sightline:slo_objective:ratio) * 0 + 1'),
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
        steps=ERROR_STEPS,
        links=(drill("HTTP"),),
    ),
    response_p95(drill("HTTP")),
    stat(
        "Users in 5 min",
        "Distinct users seen in the last 5 minutes. Instances share users, so the largest one counts: a lower bound.",
        Query(or_zero('max(active_users{@app, window="5m"})')),
        unit="none",
        links=(drill("HTTP"),),
    ),
    model_p95("@app", drill("LLM")),
    stat(
        "Tokens",
        "Tokens per minute, input and output of all models.",
        Query(or_zero("60 * sum(rate(llm_tokens_total{@app}[@rate]))")),
        unit=PER_MINUTE,
        links=(drill("LLM"),),
    ),
    query_p95("@app", drill("Database")),
    pool_in_use("@app", drill("Database")),
    stat(
        "Tx rate",
        f"Commits and rollbacks per second, as PostgreSQL counts them (average of 5 minutes). {PER_CHECKOUT}",
        Query("sum(instance:pg_transactions:rate5m{@db})"),
        unit="count:tx/s",
        decimals=1,
        links=(drill("Database"),),
    ),
    cpu(drill("Host")),
    memory(drill("Host")),
    disk(drill("Host")),
)

OBJECTIVES = (
    timeseries(
        "Error budget left",
        "Availability: requests that are not answered with a 5xx status. Latency: requests that are answered in time. "
        "Over 30 days, or for as long as Prometheus remembers. What is overdrawn by more than all of it is drawn at "
        "-100 %; the number above says how much it is.",
        Query(
            'clamp_min(min by (slo) (job_slo:error_budget_left:ratio{job=~"$job"})'
            " or max by (slo) (sightline:slo_objective:ratio) * 0 + 1, -1)",
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
            'max by (slo) (job_slo:error_budget_burn:rate1h{job=~"$job"})'
            " or max by (slo) (sightline:slo_objective:ratio) * 0",
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
    ALERTS_TABLE,
)

SERVICE = (
    timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(by_status_class("@traffic"), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        legend="names",
        links=(drill("HTTP"),),
    ),
    response_time("Response time", "names", drill("HTTP")),
    timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status, of all instances (average of 5 minutes), of the endpoints where "
        "that happened. The line is the objective: more than that spends the error budget faster than 30 days allow.",
        (
            Query(
                occurring(
                    error_ratio('job=~"$job"'),
                    'http_requests_total{@traffic, status_code=~"5.."}',
                    "endpoint",
                ),
                "{{endpoint}}",
            ),
            objective("availability"),
        ),
        unit="percentunit",
        overrides=OBJECTIVE_LINE,
        legend="names",
        links=(drill("HTTP", "var-endpoint=${__field.labels.endpoint:percentencode}"),),
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
        "Duration of calls of language models that succeeded, to the end of the answer.",
        average_and_percentiles(DURATION, 0.5, 0.95, matchers=ANSWERED),
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
        average_and_percentiles("db_query_duration_seconds"),
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
        "PostgreSQL counts. " + PER_CHECKOUT,
        (
            Query(transactions(), "{{outcome}}"),
            Query("sum(instance:pg_transactions:rate5m{@db})", "PostgreSQL, average of 5 min"),
        ),
        unit="count:tx/s",
        stacked=True,
        overrides=(*coloured(OUTCOME_COLOURS), *dashed("PostgreSQL, average of 5 min")),
        legend="names",
        links=(drill("Database"),),
    ),
)

MACHINES = tuple(panel(drill("Host")) for panel in (cpu_by_host, memory_by_host, disk_throughput, network_throughput))

DASHBOARD = dashboard(
    "Overview",
    "Is the service healthy, right now? The four areas, the error budget, and what is firing.",
    variables=(JOB, INSTANCE, NODE, SERVER, STREAMING, IGNORED),
    rows=(
        Row("", tuple(panel.sized(3) for panel in STRIP)),
        Row(
            "Objectives and alerts",
            tuple(panel.sized(width, 7) for panel, width in zip(OBJECTIVES, (6, 6, 12), strict=True)),
        ),
        Row("Service", tuple(panel.sized(6, 7) for panel in SERVICE)),
        Row("Language models", tuple(panel.sized(8, 7) for panel in MODELS)),
        Row("Database", tuple(panel.sized(8, 7) for panel in DATABASE)),
        Row("Host", tuple(panel.sized(6, 7) for panel in MACHINES)),
    ),
)
