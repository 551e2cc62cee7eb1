"""HTTP: rate, errors and duration by endpoint, and who uses the service."""

from __future__ import annotations

from .common import (
    BURN_LIMIT,
    ENDPOINT,
    IN,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    OUT,
    SLO_COLOURS,
    SLO_ERROR_RATIO,
    SLO_LATENCY,
    SLO_SLOW_RATIO,
    STATUS_COLOURS,
    active_users,
    dashboard,
)
from .model import Link, Query, Row
from .panels import PER_MINUTE, Column, Steps, below_zero, coloured, halves, heatmap, stat, table, timeseries
from .promql import by_status_class, heat, mean, occurring, or_named, or_zero, per_minute, quantile, ratio

REQUESTS = "rate(http_requests_total{@http}[@rate])"
SERVER_ERRORS = 'rate(http_requests_total{@http, status_code=~"5.."}[@rate])'
CLIENT_ERRORS = 'rate(http_requests_total{@http, status_code=~"4.."}[@rate])'
SLOW = 'job_endpoint:http_slow:rate5m{job=~"$job", endpoint=~"$endpoint"}'
JUDGED = 'job_endpoint:http_requests:rate5m{job=~"$job", endpoint=~"$endpoint"}'
DURATION = "http_request_duration_seconds"
ONE_ENDPOINT = Link(
    "Only ${__field.labels.endpoint}",
    "/d/sightline-http?${__url_time_range}&${__all_variables}&var-endpoint=${__field.labels.endpoint:percentencode}",
)

STRIP = tuple(
    panel.sized(3)
    for panel in (
        stat(
            "Requests",
            "Requests answered per second.",
            Query(or_zero(f"sum({REQUESTS})")),
            unit="reqps",
            decimals=1,
        ),
        stat(
            "Server errors",
            "Share of requests answered with a 5xx status. Orange from the objective on, red from ten times as much.",
            Query(ratio(SERVER_ERRORS, REQUESTS)),
            unit="percentunit",
            decimals=2,
            steps=Steps(SLO_ERROR_RATIO, 10 * SLO_ERROR_RATIO),
        ),
        stat(
            "Client errors",
            "Share of requests answered with a 4xx status. Callers cause these; a jump often follows a release.",
            Query(ratio(CLIENT_ERRORS, REQUESTS)),
            unit="percentunit",
            decimals=1,
            steps=Steps(0.1, 0.3),
        ),
        stat(
            "Too slow",
            "Share of requests that the latency objective counts as slow: more than 0.5 s to the last byte, for /chat "
            "more than 5 s to the first (average of 5 minutes). The objective bears 1 %.",
            Query(ratio(SLOW, JUDGED)),
            unit="percentunit",
            decimals=2,
            steps=Steps(SLO_SLOW_RATIO, 10 * SLO_SLOW_RATIO),
        ),
        stat(
            "Average time",
            "Average time to the last byte of the response.",
            Query(mean(DURATION, matchers="@http")),
            unit="s",
            no_value="idle",
        ),
        stat(
            "p95 time",
            "95 of 100 requests are answered within this time.",
            Query(quantile(0.95, DURATION, matchers="@http")),
            unit="s",
            no_value="idle",
        ),
        stat(
            "p99 time",
            "99 of 100 requests are answered within this time.",
            Query(quantile(0.99, DURATION, matchers="@http")),
            unit="s",
            no_value="idle",
        ),
        stat(
            "In progress",
            "Requests that are being answered at this moment.",
            Query(or_zero("sum(http_requests_in_progress{@http})")),
            unit="none",
        ),
    )
)

RATE_AND_ERRORS = (
    timeseries(
        "Request rate by endpoint",
        "Requests per second of each route template.",
        Query(or_named(f"sum by (endpoint) ({REQUESTS})", "endpoint", "no requests"), "{{endpoint}}"),
        unit="reqps",
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(by_status_class(REQUESTS), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        legend="right",
    ),
    timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status, of the endpoints where that happened. The line is the "
        "objective: what stays above it spends the error budget too fast.",
        Query(
            occurring(
                ratio(SERVER_ERRORS, REQUESTS, "endpoint"),
                'http_requests_total{@http, status_code=~"5.."}',
                "endpoint",
            ),
            "{{endpoint}}",
        ),
        unit="percentunit",
        limit=SLO_ERROR_RATIO,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Error budget burn by window",
        "How many times faster than sustainable the budget is spent, of all endpoints together. The line is where an "
        "hour's burn calls somebody; longer windows alert at less.",
        tuple(
            Query(
                f'max by (slo) (job_slo:error_budget_burn:rate{window}{{job=~"$job"}})'
                " or max by (slo) (slo:objective:ratio) * 0",
                f"{{{{slo}}}} {window}",
            )
            for window in ("1h", "6h", "1d", "3d")
        ),
        unit="suffix:x",
        limit=BURN_LIMIT,
        soft_highest=BURN_LIMIT + 1,
        overrides=coloured(
            {
                f"{slo} {window}": f"{shade}{colour}"
                for slo, colour in SLO_COLOURS.items()
                for window, shade in (("1h", ""), ("6h", "semi-dark-"), ("1d", "dark-"), ("3d", "super-light-"))
            }
        ),
        legend="right",
        no_value="The recording rules are not loaded",
    ),
)

DURATIONS = (
    timeseries(
        "Response time",
        "Time to the last byte of the response, average and percentiles. The line is the latency objective.",
        (
            Query(mean(DURATION, matchers="@http"), "average"),
            Query(quantile(0.5, DURATION, matchers="@http"), "p50"),
            Query(quantile(0.95, DURATION, matchers="@http"), "p95"),
            Query(quantile(0.99, DURATION, matchers="@http"), "p99"),
        ),
        unit="s",
        log=True,
        limit=SLO_LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        legend="right",
        no_value="No requests in this range",
    ),
    heatmap(
        "Response time spread",
        "Requests per second in each bucket of response time. Two bands are two kinds of requests.",
        heat(DURATION, "@http"),
        unit="s",
    ),
    timeseries(
        "Response time p95 by endpoint",
        "95 of 100 requests of the endpoint are answered within this time.",
        Query(quantile(0.95, DURATION, "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="s",
        log=True,
        limit=SLO_LATENCY,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    ),
    timeseries(
        "Average response time by endpoint",
        "Average time to the last byte of the response.",
        Query(mean(DURATION, "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="s",
        log=True,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    ),
    timeseries(
        "Too slow by endpoint",
        "Share of requests that the latency objective counts as slow: longer than 0.5 s to the last byte, for /chat "
        "longer than 5 s to the first. The line is the objective.",
        Query(or_named(ratio(SLOW, JUDGED, "endpoint"), "endpoint", "no requests"), "{{endpoint}}"),
        unit="percentunit",
        limit=SLO_SLOW_RATIO,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Response start p95 by endpoint",
        "Time until the response starts, which is what a streaming endpoint is judged by.",
        Query(quantile(0.95, "http_response_start_seconds", "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="s",
        log=True,
        limit=SLO_LATENCY,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    ),
)

BY = ("method", "endpoint")
ENDPOINTS = (
    table(
        "Endpoints",
        "Every endpoint at the end of the time range. A click on one shows the dashboard for it alone.",
        (
            Query(f"sum by (method, endpoint) ({REQUESTS})", instant=True, format="table"),
            Query(ratio(SERVER_ERRORS, REQUESTS, *BY), instant=True, format="table"),
            Query(ratio(CLIENT_ERRORS, REQUESTS, *BY), instant=True, format="table"),
            Query(mean(DURATION, *BY, matchers="@http"), instant=True, format="table"),
            Query(quantile(0.5, DURATION, *BY, matchers="@http"), instant=True, format="table"),
            Query(quantile(0.95, DURATION, *BY, matchers="@http"), instant=True, format="table"),
            Query(quantile(0.99, DURATION, *BY, matchers="@http"), instant=True, format="table"),
            Query(
                "sum by (method, endpoint) (http_requests_in_progress{@http})"
                " and on (method, endpoint) http_requests_total{@http}",
                instant=True,
                format="table",
            ),
        ),
        unit="short",
        height=12,
        columns=(
            Column("method", "Method", width=100),
            Column(
                "endpoint",
                "Endpoint",
                links=(
                    Link(
                        "Only this endpoint",
                        "/d/sightline-http?${__url_time_range}&${__all_variables}"
                        "&var-endpoint=${__value.text:percentencode}",
                    ),
                ),
            ),
            Column("Value #A", "Requests", unit="reqps", width=180, bar=True, decimals=2),
            Column(
                "Value #B",
                "Server errors",
                unit="percentunit",
                width=150,
                steps=Steps(SLO_ERROR_RATIO, 10 * SLO_ERROR_RATIO),
                decimals=2,
            ),
            Column("Value #C", "Client errors", unit="percentunit", width=150, steps=Steps(0.1, 0.3), decimals=1),
            Column("Value #D", "Average", unit="s", width=150),
            Column("Value #E", "p50", unit="s", width=150),
            Column("Value #F", "p95", unit="s", width=150),
            Column("Value #G", "p99", unit="s", width=150),
            Column("Value #H", "In progress", unit="none", width=150),
        ),
        sort_by="Requests",
        no_value="No requests in this range",
    ),
)

USERS = (
    active_users("right"),
    timeseries(
        "Requests in progress",
        "Requests that are being answered, by endpoint. A steady climb means they no longer finish.",
        Query(
            or_named("sum by (endpoint) (http_requests_in_progress{@http})", "endpoint", "no requests"), "{{endpoint}}"
        ),
        unit="none",
        stacked=True,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
)

FAILURES = (
    timeseries(
        "Server errors by endpoint",
        "Responses per minute with a 5xx status, by endpoint and status.",
        Query(
            or_named(f"60 * sum by (status_code, endpoint) ({SERVER_ERRORS})", "status_code"),
            "{{status_code}} {{endpoint}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Client errors by endpoint",
        "Responses per minute with a 4xx status, by endpoint and status. 499 is a client that left before the end, "
        "unmatched is a path that no route serves.",
        Query(
            or_named(
                "60 * sum by (status_code, endpoint)"
                ' (rate(http_requests_total{@app, endpoint=~"$endpoint", status_code=~"4.."}[@rate]))',
                "status_code",
            ),
            "{{status_code}} {{endpoint}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Exceptions",
        "Exceptions per minute that no handler caught, by class and endpoint.",
        Query(
            or_named(per_minute("http_exceptions_total", "exception", "endpoint", matchers="@http"), "exception"),
            "{{exception}} {{endpoint}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Request rate by instance",
        "Requests per second of each replica. They should share the load evenly.",
        Query(or_named(f"sum by (instance) ({REQUESTS})", "instance", "no requests"), "{{instance}}"),
        unit="reqps",
        legend="right",
    ),
)

SIZES_AND_LIMITS = (
    heatmap(
        "Response start spread",
        "Requests per second in each bucket of the time until the response starts.",
        heat("http_response_start_seconds", "@http"),
        unit="s",
    ),
    timeseries(
        "Traffic",
        "Bytes per second of bodies received (up) and sent (down).",
        (
            Query(or_zero("sum(rate(http_request_size_bytes_sum{@http}[@rate]))"), "received"),
            Query(or_zero("sum(rate(http_response_size_bytes_sum{@http}[@rate]))"), "sent"),
        ),
        unit="Bps",
        lowest=None,
        overrides=(*coloured({"received": IN}), *below_zero("sent", colour=OUT)),
    ),
    timeseries(
        "Counted as overflow",
        "Requests per minute beyond the limit of label combinations, counted under the endpoint `overflow`. More than "
        "none means that some label grows without bound.",
        Query(or_zero(per_minute("http_metrics_overflow_total")), "overflow"),
        unit=PER_MINUTE,
        overrides=coloured({"overflow": "red"}),
    ),
    timeseries(
        "Request size by endpoint",
        "Average size of request bodies.",
        Query(mean("http_request_size_bytes", "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="decbytes",
        width=12,
        legend="right",
        no_value="No requests in this range",
    ),
    timeseries(
        "Response size by endpoint",
        "Average size of response bodies.",
        Query(mean("http_response_size_bytes", "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="decbytes",
        width=12,
        legend="right",
        no_value="No requests in this range",
    ),
)

DASHBOARD = dashboard(
    "HTTP",
    "Rate, errors and duration of requests, by endpoint; who is active; what fails.",
    variables=(JOB, INSTANCE, ENDPOINT),
    rows=(
        Row("", STRIP),
        Row("Rate and errors", halves(RATE_AND_ERRORS)),
        Row("Response time", halves(DURATIONS)),
        Row("Endpoints", ENDPOINTS),
        Row("Users and concurrency", halves(USERS)),
        Row("What fails", halves(FAILURES)),
        Row("Sizes and limits", SIZES_AND_LIMITS, collapsed=True),
    ),
)
