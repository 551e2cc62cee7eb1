"""Load test: Locust's requests (client side), above the service's responses at the same time (server side)."""

from __future__ import annotations

from prometheus.src import recorded

from . import bounds, slo
from .common import IGNORED, INSTANCE, JOB, LATENCY_COLOURS, NODE, STATUS_COLOURS, STREAMING, dashboard, drill
from .common_panels import percentile_lines, response_time, service_stat
from .database_application import pool_use
from .host_usage import CPU, MEMORY
from .layout import full, halves, sixths, thirds
from .looks import PER_MINUTE, Steps, coloured, dashed, fixed, override, values
from .model import Choice, Query, Row
from .panels import heatmap, stat, timeseries
from .promql import (
    EMPTY_HEATMAP,
    PROMETHEUS,
    Outcomes,
    by_status_class,
    fraction,
    happened_raw,
    http_outcomes,
    or_zero,
    percentile,
    quantile,
    share,
    speed,
)
from .tables import Column, table

# A load test changes within seconds: a minute is the window here, on both sides.
SENT = "rate(locust_requests_total[1m])"
# By outcome, whose series start at 0; the series of a kind of failure starts with the first one.
FAILED = 'rate(locust_response_time_seconds_count{outcome="failure"}[1m])'
QUICK = 'name!~".*($streaming).*"'  # requests that wait for a language model have their own panels
# Failures are not speed.
SUCCEEDED = f'{QUICK}, outcome="success"'
TIMES = f"rate(locust_response_time_seconds_bucket{{{SUCCEEDED}}}[1m])"
FAILED_TIMES = f'rate(locust_response_time_seconds_bucket{{{QUICK}, outcome="failure"}}[1m])'
EARLIER = f"rate(locust_response_time_seconds_bucket{{{SUCCEEDED}}}[1m] offset $before)"


def outcomes(requests: str) -> Outcomes:
    ended = f"locust_response_time_seconds_count{{{requests}"
    return Outcomes(
        failed=(f'{ended}outcome="failure"}}',),
        succeeded=(f'{ended}outcome="success"}}',),
        under_way=("locust_users",),
    )


NO_TEST = "No load test ran in this range"
BEFORE = Choice(
    "before",
    "Compare with",
    ("15m", "30m", "1h", "3h", "6h", "12h", "1d", "7d"),
    "How much earlier the run to compare with began",
)

STRIP = (
    stat(
        "Load test",
        "Whether a load test runs now.",
        or_zero("max(locust_test_running)", PROMETHEUS),
        unit="none",
        colour="purple",
        mappings=(values({"0": ("none", "text"), "1": ("running", "purple")}),),
    ),
    stat(
        "Users",
        "Users that the load test simulates now.",
        or_zero("sum(locust_users)", PROMETHEUS),
        unit="none",
        colour="purple",
    ),
    stat(
        "Requests",
        "Requests per second that completed, including failed ones, as counted by Locust, average of a minute.",
        or_zero(f"sum({SENT})", PROMETHEUS),
        unit="reqps",
        decimals=1,
        colour="purple",
    ),
    stat(
        "Failed",
        "Share of requests that Locust counted as failed, average of a minute: wrong status, broken connection, wrong "
        "content.",
        share(FAILED, SENT, outcomes("")),
        unit="percentunit",
        decimals=2,
        steps=slo.ERROR_STEPS,
        no_value="no test",
    ),
    stat(
        "Client p95",
        "95 of 100 requests that do not fail are answered within this time, as measured by the client, without "
        "requests that wait for a model. The difference from the service's own measurement is time in queues and "
        "on the network.",
        speed(quantile(0.95, TIMES), outcomes(f"{QUICK}, ")),
        unit="s",
        steps=Steps(slo.LATENCY / 2, slo.LATENCY),
        no_value="no test",
        bounds=bounds.RESPONSE,
    ),
    service_stat(
        "Server p95",
        "95 of 100 requests that do not fail are answered within this time, as measured by the service, without "
        "requests that wait for a model; average of a minute.",
        speed(percentile(0.95, recorded.RESPONSE_1M, matchers="@quick"), http_outcomes("@quick")),
        unit="s",
        steps=Steps(slo.LATENCY / 2, slo.LATENCY),
        no_value="idle",
        bounds=bounds.RESPONSE,
        links=(drill("HTTP"),),
    ),
)

CLIENT = (
    timeseries(
        "Users and requests",
        "Simulated users (left), and the requests per second that they send (right).",
        (
            Query(or_zero("sum(locust_users)", PROMETHEUS), "users"),
            Query(or_zero(f"sum({SENT})", PROMETHEUS), "requests per second"),
        ),
        unit="none",
        overrides=(
            *coloured({"users": "purple"}),
            override("requests per second", color=fixed("blue"), unit="reqps", custom_axisPlacement="right"),
        ),
    ),
    timeseries(
        "Response time, client side",
        "As the client measures it, to the last byte, average and percentiles of requests that do not fail, and p95 of "
        "those that do (dashed); without requests that wait for a model. The line is the latency objective.",
        (
            Query(
                f"sum(rate(locust_response_time_seconds_sum{{{SUCCEEDED}}}[1m]))"
                f" / (sum(rate(locust_response_time_seconds_count{{{SUCCEEDED}}}[1m])) > 0)",
                "average",
            ),
            *(Query(quantile(q, TIMES), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
            Query(quantile(0.95, FAILED_TIMES), "p95 of failures"),
        ),
        unit="s",
        log=True,
        limit=slo.LATENCY,
        overrides=(*coloured(LATENCY_COLOURS), *dashed("p95 of failures", colour="dark-red")),
        no_value=NO_TEST,
    ),
    timeseries(
        "Failures by kind",
        "Failed requests per minute, as counted by Locust.",
        Query(happened_raw("locust_failures_total", "error_class", source=PROMETHEUS), "{{error_class}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
    ),
)

SERVICE = (
    timeseries(
        "Request rate by status",
        "Requests per second by class of status, as the service counts them.",
        Query(by_status_class(recorded.REQUESTS_1M, "@traffic"), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        links=(drill("HTTP"),),
    ),
    response_time("Response time, server side", drill("HTTP"), histogram=recorded.RESPONSE_1M),
    timeseries(
        "Saturation",
        "Utilization of the resources that a load test usually exhausts first, of the busiest host and the fullest "
        "pool.",
        (
            Query(f"max({CPU})", "CPU"),
            Query(pool_use("@app"), "connection pool"),
            Query(f"max({MEMORY})", "memory"),
        ),
        unit="percentunit",
        highest=1,
        overrides=coloured({"CPU": "blue", "connection pool": "orange", "memory": "green"}),
        links=(drill("Host"),),
    ),
    timeseries(
        "Requests in progress",
        "Requests in progress in the service. If they grow faster than the users, the service has reached its limit.",
        (
            Query(or_zero(f"sum({recorded.IN_PROGRESS.of('@traffic')})"), "in progress"),
            Query(or_zero("sum(db_pool_pending_checkouts{@app})"), "waiting for a connection"),
        ),
        unit="none",
        overrides=coloured({"in progress": "blue", "waiting for a connection": "red"}),
        links=(drill("HTTP"),),
    ),
    timeseries(
        "Query time p95, 5 min",
        "95 of 100 queries of the last five minutes are answered within this time; the other panels show one minute.",
        percentile_lines(recorded.QUERY, 0.95),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("Database"),),
        no_value="No queries in this range",
    ),
    timeseries(
        "Model response time p95",
        "95 of 100 successful LLM calls complete within this time.",
        percentile_lines(recorded.CALL_1M, 0.95),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        links=(drill("LLM"),),
        no_value="No successful calls in this range",
    ),
)

_EARLIER = dashed("earlier run")
COMPARISON = (
    timeseries(
        "Request rate, compared",
        "Requests per second of this run, over those of an earlier one: choose at the top how much earlier it began.",
        (
            Query(or_zero(f"sum({SENT})", PROMETHEUS), "this run"),
            Query("sum(rate(locust_requests_total[1m] offset $before))", "earlier run"),
        ),
        unit="reqps",
        overrides=(*coloured({"this run": "purple"}), *_EARLIER),
    ),
    timeseries(
        "p95, compared",
        "The client's p95 of this run, over that of an earlier one, without requests that wait for a model.",
        (Query(quantile(0.95, TIMES), "this run"), Query(quantile(0.95, EARLIER), "earlier run")),
        unit="s",
        overrides=(*coloured({"this run": "purple"}), *_EARLIER),
        no_value=NO_TEST,
    ),
)

BY = ("method", "name")
OF_SUCCESS, OF_FAILURE = ('outcome="success"', 'outcome="failure"')
REQUESTS = (
    table(
        "Requests of the load test",
        "Every kind of request over the whole time range, as Locust counts it. Average, p50, p95 and p99 are of those "
        "that did not fail.",
        (
            "sum by (method, name) (increase(locust_requests_total[$__range]))",
            fraction(
                f"increase(locust_response_time_seconds_count{{{OF_FAILURE}}}[$__range])",
                "increase(locust_requests_total[$__range])",
                *BY,
            ),
            f"sum by (method, name) (increase(locust_response_time_seconds_sum{{{OF_SUCCESS}}}[$__range])) / "
            f"(sum by (method, name) (increase(locust_response_time_seconds_count{{{OF_SUCCESS}}}[$__range])) > 0)",
            *(
                f"histogram_quantile({q}, sum by (le, method, name) "
                f"(increase(locust_response_time_seconds_bucket{{{outcome}}}[$__range]))) >= 0"
                for q, outcome in ((0.5, OF_SUCCESS), (0.95, OF_SUCCESS), (0.99, OF_SUCCESS), (0.95, OF_FAILURE))
            ),
        ),
        unit="short",
        columns=(
            Column("method", "Method", width=75),
            Column("name", "Request"),
            Column("Value #A", "Requests", unit="none", width=130, bar=True, decimals=0),
            Column(
                "Value #B",
                "Failed",
                unit="percentunit",
                width=75,
                steps=slo.ERROR_STEPS,
                decimals=2,
            ),
            Column("Value #C", "Average", unit="s", width=80),
            *(
                Column(f"Value #{letter}", title, unit="s", width=width, bounds=bounds.RESPONSE)
                for letter, title, width in (
                    ("D", "p50", 80),
                    ("E", "p95", 80),
                    ("F", "p99", 80),
                    ("G", "Failed p95", 90),
                )
            ),
        ),
        sort_by=(("Requests", True),),
        no_value=NO_TEST,
    ),
)

DETAIL = (
    heatmap(
        "Response time distribution",
        "Requests per second in each bucket of response time, as the client measures it.",
        f"sum by (le) (rate(locust_response_time_seconds_bucket[1m])) or on () ({EMPTY_HEATMAP} unless on () "
        "last_over_time(locust_response_time_seconds_count[$__range] @ end()))",
        unit="s",
    ),
    timeseries(
        "Response time p95 by request",
        "95 of 100 requests of this kind that do not fail are answered within this time, as the client measures it.",
        Query(
            quantile(0.95, f"rate(locust_response_time_seconds_bucket{{{OF_SUCCESS}}}[1m])", "method", "name"),
            "{{method}} {{name}}",
        ),
        unit="s",
        log=True,
        no_value=NO_TEST,
    ),
    timeseries(
        "TTFT p95, client side",
        "Time to first token: 95 of 100 streamed answers begin within this time, as the client measures it.",
        Query(quantile(0.95, "rate(locust_time_to_first_token_seconds_bucket[1m])", "name"), "{{name}}"),
        unit="s",
        no_value="Nothing streamed in a load test in this range",
    ),
    timeseries(
        "Abandoned streams",
        "Streamed answers per minute that a simulated user abandoned, as some real users do.",
        Query(happened_raw("locust_streams_abandoned_total", "name", source=PROMETHEUS), "{{name}}"),
        unit=PER_MINUTE,
    ),
    timeseries(
        "Locust workers",
        "Processes that report to Locust's master; none if a single process generates all load.",
        Query(or_zero("sum(locust_workers)", PROMETHEUS), "workers"),
        unit="none",
        overrides=coloured({"workers": "purple"}),
    ),
)

DASHBOARD = dashboard(
    "Load test",
    "Requests of a load test (client side), and the service's responses at the same time (server side). Rates and "
    "percentiles are averages of a minute.",
    variables=(JOB, INSTANCE, NODE, BEFORE, STREAMING, IGNORED),
    rows=(
        Row("", sixths(STRIP)),
        Row("Client side: Locust", thirds(CLIENT, 7)),
        Row("Server side: the service", thirds(SERVICE, 7)),
        Row("Requests", full(REQUESTS, 10)),
        Row("Comparison with an earlier run", halves(COMPARISON, 7)),
        Row("Detail", (*thirds(DETAIL[:3]), *halves(DETAIL[3:])), collapsed=True),
    ),
)
