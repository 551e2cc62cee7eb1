"""Overview: is the service healthy, right now? The fourteen core metrics, the error budget, what is firing."""

from __future__ import annotations

from prometheus.src import recorded

from . import slo
from .common import (
    IGNORED,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    NODE,
    OUTCOME_COLOURS,
    POOL_COLOURS,
    SERVER,
    SLO_COLOURS,
    STREAMING,
    TOKEN_COLOURS,
    dashboard,
    drill,
)
from .common_panels import (
    ALERTS_TABLE,
    NOT_COUNTED,
    active_users,
    alerts,
    average_and_percentiles,
    error_rate,
    error_rate_by_endpoint,
    requests_by_status,
    response_p95,
    response_time,
    service_stat,
    targets_up,
    up_of,
    worst_endpoint,
)
from .database_application import PER_CHECKOUT, pool_in_use, query_errors, query_p95, transactions
from .database_postgresql import postgresql_up
from .host_usage import cpu, cpu_by_host, disk, disk_throughput, memory, memory_by_host, network_throughput
from .layout import halves, quarters, sixths, thirds
from .llm import failed_calls, model_p95
from .looks import PER_MINUTE, Steps, coloured, dashed
from .model import Panel, Query, Row
from .panels import timeseries
from .promql import mean, or_zero

# All targets of a job that was a service within the last 30 days.
KNOWN = f'up{{@app}} and on (job) last_over_time({recorded.ALIVE.name}{{job=~"$job"}}[30d])'


def error_budget(title: str, name: str, objective_of: str) -> Panel:
    """The remaining error budget of one objective, of the service with the least."""
    return service_stat(
        title,
        f"Error budget remaining of the {name} objective: {objective_of} 100 % is untouched, at 0 the objective of 30 "
        "days is missed; values below -100 % are shown as -100 %. No value while no instance responds: requests that "
        "are not counted spend nothing, and the graph below shows what was left.",
        f'clamp_min(min(job_slo:error_budget_remaining:ratio{{job=~"$job", slo="{name}"}}), -1)',
        unit="percentunit",
        decimals=0,
        steps=Steps(0.5, 0.1),
        no_value="not counted",
        links=(drill("HTTP"),),
    )


STRIP = (
    up_of(
        "Instances",
        "Instances of the service that respond to Prometheus, of all that it scrapes. While one is down, its data "
        "are missing in everything below.",
        KNOWN,
        "none known",
        drill("Monitoring"),
    ),
    alerts(drill("Monitoring")),
    targets_up(drill("Monitoring")),
    postgresql_up("@db", drill("Database")),
    error_budget("SLO 5xx", "availability", "requests that are not answered with a 5xx status."),
    error_budget("SLO slow", "latency", "requests that are answered in time."),
    service_stat(
        "Requests",
        "Requests per second that the service answers, all endpoints, average of 5 minutes.",
        or_zero(f"sum({recorded.REQUESTS.of('@traffic')})"),
        unit="reqps",
        decimals=1,
        links=(drill("HTTP"),),
    ),
    error_rate("Error rate", "@traffic", "@quick", drill("HTTP")),
    worst_endpoint("@traffic", "@quick", drill("HTTP")),
    response_p95(drill("HTTP")),
    failed_calls("@app", drill("LLM")),
    model_p95("@app", drill("LLM")),
    query_errors("@app", drill("Database")),
    query_p95("@app", drill("Database")),
    pool_in_use("@app", drill("Database")),
    cpu(drill("Host")),
    memory(drill("Host")),
    disk(drill("Host")),
)

OBJECTIVES = (
    timeseries(
        "Error budget",
        "Remaining error budget. Availability: requests that are not answered with a 5xx status. Latency: requests "
        f"that are answered in time. Of the budget of {slo.BUDGET_DAYS} days; time before Prometheus' data counts as "
        "unspent. Values below -100 % are drawn at -100 %.",
        Query(
            'clamp_min(min by (slo) (job_slo:error_budget_remaining:ratio{job=~"$job"}), -1)',
            "{{slo}}",
        ),
        unit="percentunit",
        limit=0,
        lowest=None,
        highest=1,
        overrides=coloured(SLO_COLOURS),
        links=(drill("HTTP"),),
        no_value=NOT_COUNTED,
    ).sized(7, 7),
    ALERTS_TABLE.sized(17, 7),
)

SERVICE = (
    requests_by_status("@traffic", drill("HTTP")),
    response_time("Response time", drill("HTTP")),
    error_rate_by_endpoint("@traffic", drill("HTTP", "var-endpoint=${__field.labels.endpoint:percentencode}")),
    timeseries(
        "Burn rate, 1 h",
        "How many times faster than sustainable the error budget is spent, over the last hour: at 1 it lasts exactly "
        f"{slo.BUDGET_DAYS} days, at {slo.BURN_LIMIT:g} (the line) an hour spends "
        f"{100 * slo.BURN_LIMIT / (24 * slo.BUDGET_DAYS):.2g} % of it, and the alert "
        "pages on-call.",
        Query(
            'max by (slo) (job_slo:error_budget_burn:rate1h{job=~"$job"})',
            "{{slo}}",
        ),
        unit="suffix:x",
        limit=slo.BURN_LIMIT,
        soft_highest=slo.BURN_LIMIT + 1,
        overrides=coloured(SLO_COLOURS),
        links=(drill("HTTP"),),
        no_value=NOT_COUNTED,
    ),
)

BUSINESS = (
    active_users(drill("HTTP")),
    timeseries(
        "Items created",
        "Items that users created per minute: the business metric of the reference service. Replace it with your own.",
        Query(or_zero("60 * sum(rate(app_items_created_total{@app}[5m]))"), "items"),
        unit=PER_MINUTE,
        overrides=coloured({"items": "blue"}),
        links=(drill("HTTP"),),
    ),
)

MODELS = (
    timeseries(
        "Token usage",
        "Tokens per second by direction. Input is what was sent to the models, output is what they wrote. Calls "
        "without known usage are missing: LLM has their share.",
        Query(f"sum by (type) ({recorded.TOKENS.of('@app')})", "{{type}}"),
        unit="count:tokens/s",
        stacked=True,
        overrides=coloured(TOKEN_COLOURS),
        links=(drill("LLM"),),
    ),
    timeseries(
        "Model response time",
        "Duration of successful LLM calls, to the end of the answer.",
        average_and_percentiles(recorded.CALL, 0.5, 0.95),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("LLM"),),
        no_value="No successful calls in this range",
    ),
    timeseries(
        "Prompt length",
        "Length of the users' prompts in characters: average, and the longest of the last minute.",
        (
            Query(mean(recorded.PROMPT), "average"),
            Query(f"max({recorded.LONGEST_PROMPT.of('@app')})", "maximum"),
        ),
        unit="short",
        overrides=coloured({"average": "text", "maximum": "red"}),
        links=(drill("LLM"),),
    ),
)

DATABASE = (
    timeseries(
        "Query time",
        "Duration of queries as the application measures it, average and percentiles.",
        average_and_percentiles(recorded.QUERY),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("Database"),),
        no_value="No queries in this range",
    ),
    timeseries(
        "Connection pool",
        "Connections of the application's pools, and how many they may open at most.",
        (
            Query(f"sum by (state) ({recorded.CONNECTIONS.of('@app')})", "{{state}}"),
            Query(f"sum({recorded.CONNECTION_LIMIT.of('@app')})", "limit"),
        ),
        unit="none",
        stacked=True,
        overrides=(*coloured(POOL_COLOURS), *dashed("limit")),
        links=(drill("Database"),),
    ),
    timeseries(
        "Transactions per second (TPS)",
        "As counted by the application when they end (one that only read ends with a rollback), next to "
        "PostgreSQL's count. " + PER_CHECKOUT,
        (
            Query(transactions("@app"), "{{outcome}}"),
            Query("sum(instance:pg_transactions:rate5m{@db} and on (instance) pg_up{@db} == 1)", "PostgreSQL"),
        ),
        unit="count:tps",
        stacked=True,
        overrides=(*coloured(OUTCOME_COLOURS), *dashed("PostgreSQL")),
        links=(drill("Database"),),
    ),
)

MACHINES = tuple(panel(drill("Host")) for panel in (cpu_by_host, memory_by_host, disk_throughput, network_throughput))

DASHBOARD = dashboard(
    "Overview",
    "Is the service healthy, right now? The four areas, the error budget, and what is firing. Rates and percentiles "
    "are averages of 5 minutes; those of hosts follow the resolution of the graph.",
    variables=(JOB, INSTANCE, NODE, SERVER, STREAMING, IGNORED),
    rows=(
        Row("", sixths(STRIP)),
        Row("Objectives and alerts", OBJECTIVES),
        Row("Service", tuple(panel.sized(width, 7) for panel, width in zip(SERVICE, (6, 5, 8, 5), strict=True))),
        Row("Users and business", halves(BUSINESS, 7)),
        Row("Language models", thirds(MODELS, 7)),
        Row("Database", thirds(DATABASE, 7)),
        Row("Host", quarters(MACHINES, 7)),
    ),
)
