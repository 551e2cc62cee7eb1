"""Load test: what Locust does, over what the service feels at the same time."""

from __future__ import annotations

from .common import (
    ERROR_STEPS,
    IGNORED,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    NODE,
    SLO_LATENCY,
    STATUS_COLOURS,
    STREAMING,
    average_and_percentiles,
    dashboard,
    drill,
    response_p95,
    response_time,
)
from .database import pool_use
from .host import CPU, MEMORY, cpu
from .model import Query, Row
from .panels import (
    PER_MINUTE,
    Column,
    Steps,
    coloured,
    fixed,
    full,
    heatmap,
    override,
    stat,
    table,
    thirds,
    timeseries,
    values,
)
from .promql import PROMETHEUS, by_status_class, happened, heat, or_zero, quantile, ratio

TIMES = "locust_response_time_seconds"
SENT = "rate(locust_requests_total[@rate])"
FAILED = "rate(locust_failures_total[@rate])"
QUICK = 'name!~".*($streaming).*"'  # what waits for a language model has its own panels
NO_TEST = "No load test ran in this range"

STRIP = tuple(
    panel.sized(3)
    for panel in (
        stat(
            "Load test",
            "Whether a load test runs now.",
            Query(or_zero("max(locust_test_running)", PROMETHEUS)),
            unit="none",
            colour="purple",
            mappings=(values({"0": ("none", "text"), "1": ("running", "purple")}),),
        ),
        stat(
            "People",
            "People that the load test simulates now.",
            Query(or_zero("sum(locust_users)", PROMETHEUS)),
            unit="none",
            colour="purple",
        ),
        stat(
            "Requests sent",
            "Requests per second that came to an end, failed ones too, as Locust counts them.",
            Query(or_zero(f"sum({SENT})", PROMETHEUS)),
            unit="reqps",
            decimals=1,
            colour="purple",
        ),
        stat(
            "Failed",
            "Share of requests that failed in Locust's eyes: wrong status, broken connection, wrong content.",
            Query(ratio(FAILED, SENT, source=PROMETHEUS)),
            unit="percentunit",
            decimals=2,
            steps=ERROR_STEPS,
        ),
        stat(
            "Client p95",
            "95 of 100 requests are answered within this time, as the client sees it, without what waits for a model. "
            "What it waits longer than the service measures is spent in queues and on the network.",
            Query(quantile(0.95, TIMES, matchers=QUICK)),
            unit="s",
            steps=Steps(SLO_LATENCY / 2, SLO_LATENCY),
            no_value="no test",
        ),
        response_p95(drill("HTTP")),
        stat(
            "In progress",
            "Requests that the service works on at this moment.",
            Query(or_zero("sum(http_requests_in_progress{@traffic})")),
            unit="none",
            links=(drill("HTTP"),),
        ),
        cpu(drill("Host")),
    )
)

CLIENT = (
    timeseries(
        "People and requests",
        "Simulated people (left), and the requests per second that they send (right).",
        (
            Query(or_zero("sum(locust_users)", PROMETHEUS), "people"),
            Query(or_zero(f"sum({SENT})", PROMETHEUS), "requests per second"),
        ),
        unit="none",
        overrides=(
            *coloured({"people": "purple"}),
            override("requests per second", color=fixed("blue"), unit="reqps", custom_axisPlacement="right"),
        ),
        legend="names",
    ),
    timeseries(
        "Response time, as sent",
        "As the client sees it, to the last byte, average and percentiles, without what waits for a model. The line is "
        "the latency objective.",
        average_and_percentiles(TIMES, matchers=QUICK),
        unit="s",
        log=True,
        limit=SLO_LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        no_value=NO_TEST,
        legend="names",
    ),
    timeseries(
        "Failures by kind",
        "Requests per minute that failed in Locust's eyes.",
        Query(happened("locust_failures_total", "error_class", matchers="", source=PROMETHEUS), "{{error_class}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="names",
    ),
)

SERVICE = (
    timeseries(
        "Answered by the service",
        "Requests per second by class of status, as the service counts them.",
        Query(by_status_class("@traffic"), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        links=(drill("HTTP"),),
        legend="names",
    ),
    response_time("Response time, as answered", "names", drill("HTTP")),
    timeseries(
        "What gets short",
        "Utilisation of what a load test usually exhausts first: of the busiest host and the fullest pool.",
        (
            Query(f"max({CPU})", "CPU"),
            Query(pool_use("@app"), "connection pool"),
            Query(f"max({MEMORY})", "memory"),
        ),
        unit="percentunit",
        highest=1,
        overrides=coloured({"CPU": "blue", "connection pool": "orange", "memory": "green"}),
        links=(drill("Host"),),
        legend="names",
    ),
    timeseries(
        "Requests in progress",
        "Requests that the service works on. When it grows faster than the people, the service has reached its limit.",
        (
            Query(or_zero("sum(http_requests_in_progress{@traffic})"), "in progress"),
            Query(or_zero("sum(db_pool_pending_checkouts{@app})"), "waiting for a connection"),
        ),
        unit="none",
        overrides=coloured({"in progress": "blue", "waiting for a connection": "red"}),
        links=(drill("HTTP"),),
        legend="names",
    ),
    timeseries(
        "Query time p95",
        "95 of 100 queries are answered within this time.",
        Query(quantile(0.95, "db_query_duration_seconds"), "p95"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("Database"),),
        no_value="No queries in this range",
        legend="names",
    ),
    timeseries(
        "Model response time p95",
        "95 of 100 calls of language models that succeed are complete within this time.",
        Query(quantile(0.95, "llm_request_duration_seconds", matchers='@app, outcome="success"'), "p95"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("LLM"),),
        no_value="No calls in this range",
        legend="names",
    ),
)

BY = ("method", "name")
REQUESTS = (
    table(
        "Requests of the load test",
        "Every kind of request over the whole time range, as Locust counts it.",
        (
            Query("sum by (method, name) (increase(locust_requests_total[$__range]))", instant=True, format="table"),
            Query(
                ratio("increase(locust_failures_total[$__range])", "increase(locust_requests_total[$__range])", *BY),
                instant=True,
                format="table",
            ),
            Query(
                "sum by (method, name) (increase(locust_response_time_seconds_sum[$__range]))"
                " / (sum by (method, name) (increase(locust_response_time_seconds_count[$__range])) > 0)",
                instant=True,
                format="table",
            ),
            *(
                Query(
                    f"histogram_quantile({q}, sum by (le, method, name) "
                    "(increase(locust_response_time_seconds_bucket[$__range]))) >= 0",
                    instant=True,
                    format="table",
                )
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        unit="short",
        columns=(
            Column("method", "Method", width=110),
            Column("name", "Request"),
            Column("Value #A", "Requests", unit="none", width=220, bar=True, decimals=0),
            Column(
                "Value #B",
                "Failed",
                unit="percentunit",
                width=150,
                steps=ERROR_STEPS,
                decimals=2,
            ),
            Column("Value #C", "Average", unit="s", width=150),
            Column("Value #D", "p50", unit="s", width=150),
            Column("Value #E", "p95", unit="s", width=150),
            Column("Value #F", "p99", unit="s", width=150),
        ),
        sort_by=(("Requests", True),),
        no_value=NO_TEST,
    ),
)

DETAIL = (
    heatmap(
        "Response time spread, as sent",
        "Requests per second in each bucket of response time, as the client sees it.",
        heat(TIMES, ""),
        unit="s",
    ),
    timeseries(
        "Response time p95 by request",
        "95 of 100 requests of this kind are answered within this time, as the client sees it.",
        Query(quantile(0.95, TIMES, "method", "name", matchers=""), "{{method}} {{name}}"),
        unit="s",
        log=True,
        no_value=NO_TEST,
        legend="names",
    ),
    timeseries(
        "First token p95, as sent",
        "95 of 100 streamed answers begin within this time, as the client sees it.",
        Query(quantile(0.95, "locust_time_to_first_token_seconds", "name", matchers=""), "{{name}}"),
        unit="s",
        no_value="Nothing streamed in a load test in this range",
        legend="names",
    ),
    timeseries(
        "Streams left by their readers",
        "Streamed answers per minute that a simulated person left before the end, as some people do.",
        Query(happened("locust_streams_abandoned_total", "name", matchers="", source=PROMETHEUS), "{{name}}"),
        unit=PER_MINUTE,
        width=12,
        legend="names",
    ),
    timeseries(
        "Locust's workers",
        "Processes that report to Locust's master; none where one process does it all.",
        Query(or_zero("sum(locust_workers)", PROMETHEUS), "workers"),
        unit="none",
        width=12,
        legend="names",
        overrides=coloured({"workers": "purple"}),
    ),
)

DASHBOARD = dashboard(
    "Load test",
    "What a load test sends, over what the service feels at the same time.",
    variables=(JOB, INSTANCE, NODE, STREAMING, IGNORED),
    rows=(
        Row("", STRIP),
        Row("What Locust does", thirds(CLIENT, 7)),
        Row("What the service feels", thirds(SERVICE, 7)),
        Row("Requests", full(REQUESTS, 11)),
        Row("Detail", (*thirds(DETAIL[:3]), *DETAIL[3:]), collapsed=True),
    ),
)
