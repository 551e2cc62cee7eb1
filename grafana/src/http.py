"""HTTP: rate, errors and duration by endpoint, and who uses the service."""

from __future__ import annotations

from .common import (
    BURN_LIMIT,
    ENDPOINT,
    ERROR_STEPS,
    IGNORED,
    IN,
    INSTANCE,
    INTERPOLATED,
    JOB,
    OBJECTIVE_LINE,
    OUT,
    SLO_COLOURS,
    SLO_LATENCY,
    SLO_SLOW_RATIO,
    SLO_START,
    STATUS_COLOURS,
    STREAMING,
    active_users,
    dashboard,
    objective,
    only,
    response_p95,
    response_time,
)
from .model import Query, Row
from .panels import (
    PER_MINUTE,
    Column,
    Steps,
    below_zero,
    coloured,
    full,
    halves,
    heatmap,
    stat,
    table,
    thirds,
    timeseries,
)
from .promql import by_status_class, happened, heat, mean, occurring, or_named, or_zero, per_minute, quantile, ratio

REQUESTS = "rate(http_requests_total{@http}[@rate])"
SERVER_ERRORS = 'rate(http_requests_total{@http, status_code=~"5.."}[@rate])'
CLIENT_ERRORS = 'rate(http_requests_total{@http, status_code=~"4.."}[@rate])'
SLOW = 'job_endpoint:http_slow:rate5m{job=~"$job", endpoint=~"$endpoint"}'
JUDGED = 'job_endpoint:http_requests:rate5m{job=~"$job", endpoint=~"$endpoint"}'
DURATION = "http_request_duration_seconds"
SLOW_MEANS = (
    "Share of requests that the latency objective counts as slow (average of 5 minutes): more than "
    f"{SLO_LATENCY} s to the last byte, for endpoints that wait for a model more than {SLO_START} s to the first."
)
QUICK = "@quickhttp"
ANY = "increase(http_requests_total{@http}[$__range] @ end())"
VARIABLES = (JOB, INSTANCE, ENDPOINT)
ONE_ENDPOINT = only("Only ${__field.labels.endpoint}", "HTTP", VARIABLES, ENDPOINT, "__field.labels.endpoint")


def error_ratio(matchers: str) -> str:
    """Share of requests with a 5xx status by endpoint, over 5 minutes: one of little traffic is noise."""
    return ratio(
        f"job_endpoint:http_errors:rate5m{{{matchers}}}", f"job_endpoint:http_requests:rate5m{{{matchers}}}", "endpoint"
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
            steps=ERROR_STEPS,
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
            f"{SLOW_MEANS} The objective bears 1 %.",
            Query(ratio(SLOW, JUDGED)),
            unit="percentunit",
            decimals=2,
            steps=Steps(SLO_SLOW_RATIO, 10 * SLO_SLOW_RATIO),
        ),
        stat(
            "Average time",
            "Average time to the last byte of the response. Without endpoints that wait for a model, such as /chat.",
            Query(mean(DURATION, matchers=QUICK)),
            unit="s",
            no_value="idle",
        ),
        response_p95(matchers=QUICK),
        stat(
            "Response p99",
            "99 of 100 requests are answered within this time. Without endpoints that wait for a model, such as /chat.",
            Query(quantile(0.99, DURATION, matchers=QUICK)),
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
        Query(or_named(f"sum by (endpoint) ({REQUESTS})", "endpoint", ANY, "no requests"), "{{endpoint}}"),
        unit="reqps",
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(by_status_class("@http"), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        legend="right",
    ),
    timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status, of all instances (average of 5 minutes), of the endpoints where "
        "that happened. The line is the objective: what stays above it spends the error budget too fast.",
        (
            Query(
                occurring(
                    error_ratio('job=~"$job", endpoint=~"$endpoint"'),
                    'http_requests_total{@http, status_code=~"5.."}',
                    "endpoint",
                ),
                "{{endpoint}}",
            ),
            objective("availability"),
        ),
        unit="percentunit",
        overrides=OBJECTIVE_LINE,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Error budget burn by window",
        "How many times faster than sustainable the budget is spent, of all endpoints together. The line is where an "
        "hour's burn calls somebody; six hours' does at 6.",
        tuple(
            Query(
                f'max by (slo) (job_slo:error_budget_burn:rate{window}{{job=~"$job"}})'
                " or max by (slo) (sightline:slo_objective:ratio) * 0",
                f"{{{{slo}}}} {window}",
            )
            for window in ("1h", "6h")
        ),
        unit="suffix:x",
        limit=BURN_LIMIT,
        soft_highest=BURN_LIMIT + 1,
        overrides=coloured(
            {
                f"{slo} {window}": f"{shade}{colour}"
                for slo, colour in SLO_COLOURS.items()
                for window, shade in (("1h", ""), ("6h", "super-light-"))
            }
        ),
        legend="right",
        no_value="The recording rules are not loaded",
    ),
)

DURATIONS = (
    response_time("Response time", "right", matchers=QUICK),
    heatmap(
        "Response time spread",
        "Requests per second in each bucket of response time, all endpoints. Two bands are two kinds of requests.",
        heat(DURATION, "@http"),
        unit="s",
    ),
    timeseries(
        "Response time p95 by endpoint",
        f"95 of 100 requests of the endpoint are answered within this time. {INTERPOLATED}",
        Query(quantile(0.95, DURATION, "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="s",
        log=True,
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
        f"{SLOW_MEANS} The line is the objective.",
        (
            Query(or_named(ratio(SLOW, JUDGED, "endpoint"), "endpoint", ANY, "no requests"), "{{endpoint}}"),
            objective("latency"),
        ),
        unit="percentunit",
        overrides=OBJECTIVE_LINE,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Response start p95 by endpoint",
        f"Time until the response starts: of a stream, how long people look at nothing. {INTERPOLATED}",
        Query(quantile(0.95, "http_response_start_seconds", "endpoint", matchers="@http"), "{{endpoint}}"),
        unit="s",
        log=True,
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
        columns=(
            Column("method", "Method", width=100),
            Column(
                "endpoint",
                "Endpoint",
                links=(only("Only this endpoint", "HTTP", VARIABLES, ENDPOINT, "__value.text"),),
            ),
            Column("Value #A", "Requests", unit="reqps", width=180, bar=True, decimals=2),
            Column(
                "Value #B",
                "Server errors",
                unit="percentunit",
                width=150,
                steps=ERROR_STEPS,
                decimals=2,
            ),
            Column("Value #C", "Client errors", unit="percentunit", width=150, steps=Steps(0.1, 0.3), decimals=1),
            Column("Value #D", "Average", unit="s", width=150),
            Column("Value #E", "p50", unit="s", width=150),
            Column("Value #F", "p95", unit="s", width=150),
            Column("Value #G", "p99", unit="s", width=150),
            Column("Value #H", "In progress", unit="none", width=150),
        ),
        sort_by=(("Requests", True),),
        no_value="No requests in this range",
    ),
)

USERS = (
    active_users("right"),
    timeseries(
        "Requests in progress",
        "Requests that are being answered, by endpoint. A steady climb means they no longer finish.",
        Query(
            or_named("sum by (endpoint) (http_requests_in_progress{@http})", "endpoint", ANY, "no requests"),
            "{{endpoint}}",
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
            happened("http_requests_total", "status_code", "endpoint", matchers='@http, status_code=~"5.."'),
            "{{status_code}} {{endpoint}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Client errors by endpoint",
        "Responses per minute with a 4xx status, by endpoint and status. 499 is a client that left before the end, "
        "unmatched is a path that no route serves.",
        Query(
            happened(
                "http_requests_total",
                "status_code",
                "endpoint",
                matchers='@app, endpoint=~"$endpoint", status_code=~"4.."',
            ),
            "{{status_code}} {{endpoint}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        shades="yellow",
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Exceptions by class",
        "Exceptions per minute that no handler caught.",
        Query(happened("http_exceptions_total", "exception", matchers="@http"), "{{exception}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="right",
    ),
    timeseries(
        "Request rate by instance",
        "Requests per second of each replica. They should share the load evenly.",
        Query(or_named(f"sum by (instance) ({REQUESTS})", "instance", ANY, "no requests"), "{{instance}}"),
        unit="reqps",
        legend="right",
        links=(only("Only ${__field.labels.instance}", "HTTP", VARIABLES, INSTANCE, "__field.labels.instance"),),
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
    variables=(*VARIABLES, STREAMING, IGNORED),
    rows=(
        Row("", STRIP),
        Row("Rate and errors", halves(RATE_AND_ERRORS)),
        Row("Response time", (*halves(DURATIONS[:2], 10), *halves(DURATIONS[2:]))),
        Row("Endpoints", full(ENDPOINTS, 12)),
        Row("Users and concurrency", halves(USERS)),
        Row("What fails", halves(FAILURES)),
        Row("Sizes and limits", (*thirds(SIZES_AND_LIMITS[:3]), *SIZES_AND_LIMITS[3:]), collapsed=True),
    ),
)
