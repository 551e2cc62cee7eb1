"""HTTP: rate, errors and duration by endpoint, and who uses the service."""

from __future__ import annotations

from prometheus.src import recorded

from . import bounds, slo
from .common import (
    ENDPOINT,
    IGNORED,
    IN,
    INSTANCE,
    INTERPOLATED,
    JOB,
    OBJECTIVE_LINE,
    OUT,
    SLO_COLOURS,
    STATUS_COLOURS,
    STREAMING,
    active_users,
    dashboard,
    objective,
    only,
    response_p95,
    response_time,
    service_stat,
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
    quarters,
    sixths,
    table,
    thirds,
    timeseries,
)
from .promql import (
    by_status_class,
    happened,
    heat,
    mean,
    moved,
    occurrences,
    occurring,
    or_named,
    or_zero,
    percentile,
    quantile,
    ratio,
)

SERVER_ERRORS = 'status_code=~"5.."'
# Not 499: a client that left is counted beside the errors, for it caused none.
CLIENT_ERRORS = 'status_code=~"4..", status_code!="499"'
REQUESTS = recorded.REQUESTS.of("@judged")
# One endpoint that waits for a model would hide all others in a percentile; it is in where it is chosen.
QUICK = ('@judged, endpoint!~"$streaming"', '@judged, unset!~"$endpoint"')
SLOW = 'job_endpoint:http_slow:rate5m{job=~"$job", endpoint=~"$endpoint"}'
JUDGED = 'job_endpoint:http_requests:rate5m{job=~"$job", endpoint=~"$endpoint"}'
SLOW_MEANS = (
    f"Share of requests that the latency objective counts as slow: more than {slo.LATENCY:g} s to the last byte, for "
    f"endpoints that wait for a model more than {slo.START:g} s to the first."
)
ANY = 'last_over_time(job_endpoint:http_requests:rate5m{job=~"$job"}[$__range] @ end()) > 0'
VARIABLES = (JOB, INSTANCE, ENDPOINT)
ONE_ENDPOINT = only("Only ${__field.labels.endpoint}", "HTTP", VARIABLES, ENDPOINT, "__field.labels.endpoint")


def error_ratio(matchers: str) -> str:
    """Share of requests with a 5xx status by endpoint."""
    return ratio(recorded.REQUESTS.of(f"{matchers}, {SERVER_ERRORS}"), recorded.REQUESTS.of(matchers), "endpoint")


STRIP = (
    service_stat(
        "Requests",
        "Requests per second that the service answers, average of 5 minutes.",
        or_zero(f"sum({REQUESTS})"),
        unit="reqps",
        decimals=1,
    ),
    service_stat(
        "5xx errors",
        "Share of requests answered with a 5xx status, average of 5 minutes. Orange from the objective on, red from "
        "ten times as much.",
        ratio(recorded.REQUESTS.of(f"@judged, {SERVER_ERRORS}"), REQUESTS),
        unit="percentunit",
        decimals=2,
        steps=slo.ERROR_STEPS,
    ),
    service_stat(
        "4xx errors",
        "Share of requests answered with a 4xx status, average of 5 minutes, without 499 (the client left). Clients "
        "cause these; a jump often follows a release.",
        ratio(recorded.REQUESTS.of(f"@judged, {CLIENT_ERRORS}"), REQUESTS),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.1, 0.3),
    ),
    response_p95(matchers=QUICK, outcomes="@judged"),
    service_stat(
        "Slow share",
        f"{SLOW_MEANS} Average of 5 minutes. The objective allows {100 * slo.SLOW_RATIO:g} %.",
        ratio(SLOW, JUDGED),
        unit="percentunit",
        decimals=2,
        steps=Steps(slo.SLOW_RATIO, 10 * slo.SLOW_RATIO),
    ),
    service_stat(
        "In progress",
        "Requests that are being answered at this moment.",
        or_zero(f"sum({recorded.IN_PROGRESS.of('@judged')})"),
        unit="none",
    ),
)

RED = (
    timeseries(
        "Request rate by endpoint",
        "Requests per second of each route template.",
        Query(or_named(f"sum by (endpoint) ({REQUESTS})", "endpoint", ANY, "no requests"), "{{endpoint}}"),
        unit="reqps",
        legend="names",
        links=(ONE_ENDPOINT,),
    ),
    timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status, of the endpoints where that happened. The line is the "
        "objective: what stays above it spends the error budget too fast.",
        (
            Query(
                occurring(
                    error_ratio("@judged"),
                    moved(recorded.REQUESTS, "http_requests_total", f"@judged, {SERVER_ERRORS}"),
                    "endpoint",
                ),
                "{{endpoint}}",
            ),
            objective("availability"),
        ),
        unit="percentunit",
        overrides=OBJECTIVE_LINE,
        legend="names",
        links=(ONE_ENDPOINT,),
    ),
    response_time("Response time", "names", matchers=QUICK, traced="@judged"),
)

BY = ("method", "endpoint")
# By method, too, which nothing records: a table asks for one moment, and raw buckets of one moment are quick to read.
RAW_REQUESTS = "rate(http_requests_total{@judged}[5m])"
RAW_ERRORS = f"rate(http_requests_total{{@judged, {SERVER_ERRORS}}}[5m])"
RAW_CLIENT_ERRORS = f"rate(http_requests_total{{@judged, {CLIENT_ERRORS}}}[5m])"


def raw_successes(part: str) -> str:
    """The rate of all minus that of failed requests."""
    failed = f"-rate(http_failed_request_duration_seconds_{part}{{@judged}}[5m])"
    return (
        f'rate(http_request_duration_seconds_{part}{{@judged}}[5m]) or label_replace({failed}, "failed", "1", "", "")'
    )


ENDPOINTS = (
    table(
        "Endpoints",
        "Every endpoint at the end of the time range; times are those of requests that did not fail. A click on one "
        "shows the dashboard for it alone.",
        tuple(
            Query(expr, instant=True, format="table")
            for expr in (
                f"sum by (method, endpoint) ({RAW_REQUESTS})",
                ratio(RAW_ERRORS, RAW_REQUESTS, *BY),
                ratio(RAW_CLIENT_ERRORS, RAW_REQUESTS, *BY),
                f"sum by (method, endpoint) ({raw_successes('sum')})"
                f" / (sum by (method, endpoint) ({raw_successes('count')}) > 0)",
                *(quantile(q, raw_successes("bucket"), *BY) for q in (0.5, 0.95, 0.99)),
                "sum by (method, endpoint) (http_requests_in_progress{@judged})"
                " and on (method, endpoint) http_requests_total{@judged}",
            )
        ),
        unit="short",
        columns=(
            Column("method", "Method", width=90),
            Column(
                "endpoint",
                "Endpoint",
                links=(only("Only this endpoint", "HTTP", VARIABLES, ENDPOINT, "__value.text"),),
            ),
            Column("Value #A", "Requests", unit="reqps", width=160, bar=True, decimals=2),
            Column("Value #B", "Server errors", unit="percentunit", width=115, steps=slo.ERROR_STEPS, decimals=2),
            Column("Value #C", "Client errors", unit="percentunit", width=110, steps=Steps(0.1, 0.3), decimals=1),
            Column("Value #D", "Average", unit="s", width=90),
            Column("Value #E", "p50", unit="s", width=90, bounds=bounds.RESPONSE),
            Column("Value #F", "p95", unit="s", width=90, bounds=bounds.RESPONSE),
            Column("Value #G", "p99", unit="s", width=90, bounds=bounds.RESPONSE),
            Column("Value #H", "In progress", unit="none", width=100),
        ),
        sort_by=(("Requests", True),),
        no_value="No requests in this range",
    ),
)

FAILURES = (
    timeseries(
        "Server errors by endpoint",
        "Responses per minute with a 5xx status, by endpoint and status.",
        Query(
            happened(
                recorded.REQUESTS,
                "http_requests_total",
                "status_code",
                "endpoint",
                matchers=f"@judged, {SERVER_ERRORS}",
            ),
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
                recorded.REQUESTS,
                "http_requests_total",
                "status_code",
                "endpoint",
                matchers='@http, status_code=~"4.."',
            ),
            "{{status_code}} {{endpoint}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        shades="yellow",
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
    table(
        "Exceptions",
        "Exceptions that no handler caught, and how often they occurred in the time range.",
        Query(
            occurrences("http_exceptions_total", "@http", "exception", "method", "endpoint"),
            instant=True,
            format="table",
        ),
        unit="none",
        columns=(
            Column("exception", "Exception"),
            Column("method", "Method", width=90),
            Column("endpoint", "Endpoint"),
            Column("Value", "Occurrences", unit="none", width=130, bar=True, decimals=0),
        ),
        sort_by=(("Occurrences", True),),
        no_value="No exceptions in this range",
    ),
    timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(by_status_class(recorded.REQUESTS, "@judged"), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        legend="right",
    ),
)

DURATIONS = (
    heatmap(
        "Response time distribution",
        "Requests per second in each bucket of response time, all endpoints. Two bands are two kinds of requests.",
        heat(recorded.RESPONSE, "@judged"),
        unit="s",
    ),
    timeseries(
        "Response time p95 by endpoint",
        f"95 of 100 requests of the endpoint are answered within this time. {INTERPOLATED}",
        Query(percentile(0.95, recorded.RESPONSE, "endpoint", matchers="@judged"), "{{endpoint}}"),
        unit="s",
        log=True,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    ),
    timeseries(
        "TTFB p95 by endpoint",
        f"Time to first byte, until the response starts: of a stream, how long a user waits for it. {INTERPOLATED}",
        Query(percentile(0.95, recorded.TTFB, "endpoint", matchers="@judged"), "{{endpoint}}"),
        unit="s",
        log=True,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    ),
    timeseries(
        "Average response time by endpoint",
        "Average time to the last byte of the response.",
        Query(mean(recorded.RESPONSE, "endpoint", matchers="@judged"), "{{endpoint}}"),
        unit="s",
        log=True,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    ),
)

OBJECTIVES = (
    timeseries(
        "Burn rate by window",
        "How many times faster than sustainable the error budget is spent, of all endpoints together. The line is "
        "where an hour's burn pages on-call.",
        tuple(
            Query(
                f'max by (slo) (job_slo:error_budget_burn:rate{window}{{job=~"$job"}})'
                " or max by (slo) (sightline:slo_objective:ratio) * 0",
                f"{{{{slo}}}} {window}",
            )
            for window in ("1h", "6h")
        ),
        unit="suffix:x",
        limit=slo.BURN_LIMIT,
        soft_highest=slo.BURN_LIMIT + 1,
        overrides=coloured(
            {
                f"{name} {window}": f"{shade}{colour}"
                for name, colour in SLO_COLOURS.items()
                for window, shade in (("1h", ""), ("6h", "super-light-"))
            }
        ),
        legend="right",
        no_value="The recording rules are not loaded",
    ),
    timeseries(
        "Slow requests by endpoint",
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
)

USERS = (
    active_users("right"),
    timeseries(
        "Requests in progress",
        "Requests that are being answered, by endpoint. A steady climb means they no longer finish.",
        Query(
            or_named(f"sum by (endpoint) ({recorded.IN_PROGRESS.of('@judged')})", "endpoint", ANY, "no requests"),
            "{{endpoint}}",
        ),
        unit="none",
        stacked=True,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
)

SIZES_AND_LIMITS = (
    heatmap(
        "TTFB distribution",
        "Requests per second in each bucket of the time to first byte.",
        heat(recorded.TTFB, "@judged"),
        unit="s",
    ),
    timeseries(
        "Traffic",
        "Bytes per second of bodies received (up) and sent (down).",
        (
            Query(or_zero(f"sum({recorded.RECEIVED.of('@judged')})"), "received"),
            Query(or_zero(f"sum({recorded.SENT.of('@judged')})"), "sent"),
        ),
        unit="Bps",
        lowest=None,
        overrides=(*coloured({"received": IN}), *below_zero("sent", colour=OUT)),
    ),
    timeseries(
        "Series out of bounds",
        "Overflow: requests per minute beyond the limit of label combinations, counted under the endpoint "
        "`overflow`; more than none means that some label grows without bound. Unshared: series that workers keep "
        "for themselves, as their common folder is full.",
        (
            Query(or_zero("60 * sum(rate(http_metrics_overflow_total{@app}[5m]))"), "overflow"),
            Query(or_zero("sum(telemetry_unshared_series{@app})"), "unshared"),
        ),
        unit="none",
        overrides=coloured({"overflow": "red", "unshared": "orange"}),
        legend="names",
    ),
    *(
        timeseries(
            f"{which} size by endpoint",
            f"Average size of {which.lower()} bodies.",
            Query(f"sum by (endpoint) ({size.of('@judged')}) / (sum by (endpoint) ({REQUESTS}) > 0)", "{{endpoint}}"),
            unit="decbytes",
            legend="names",
            no_value="No requests in this range",
        )
        for which, size in (("Request", recorded.RECEIVED), ("Response", recorded.SENT))
    ),
    timeseries(
        "Request rate by instance",
        "Requests per second of each replica. They should share the load evenly.",
        Query(
            or_named("sum by (instance) (instance:http_requests:rate5m{@app})", "instance", ANY, "no requests"),
            "{{instance}}",
        ),
        unit="reqps",
        legend="names",
        links=(only("Only ${__field.labels.instance}", "HTTP", VARIABLES, INSTANCE, "__field.labels.instance"),),
    ),
)

NO_SOCKETS = "No WebSockets in this range"
WEBSOCKETS = (
    timeseries(
        "WebSocket handshakes",
        "Handshakes per minute by outcome: accepted, refused by the application, abandoned by the client, or failed.",
        Query("60 * sum by (outcome) (rate(websocket_connections_total{@http}[5m]))", "{{outcome}}"),
        unit=PER_MINUTE,
        stacked=True,
        overrides=coloured({"accepted": "green", "refused": "yellow", "abandoned": "text", "failed": "red"}),
        legend="names",
        no_value=NO_SOCKETS,
    ),
    timeseries(
        "WebSockets open",
        "Connections that were accepted and are open, by endpoint.",
        Query("sum by (endpoint) (websocket_connections_open{@http})", "{{endpoint}}"),
        unit="none",
        stacked=True,
        legend="names",
        no_value=NO_SOCKETS,
    ),
    timeseries(
        "WebSockets closed",
        "Connections that ended per minute, by close code: 1006 is without a close frame, 1011 an exception.",
        Query("60 * sum by (code) (rate(websocket_closed_total{@http}[5m]))", "{{code}}"),
        unit=PER_MINUTE,
        stacked=True,
        legend="names",
        no_value=NO_SOCKETS,
    ),
    timeseries(
        "WebSocket duration",
        "Time from accepting a connection until its end, average by endpoint.",
        Query(
            "sum by (endpoint) (rate(websocket_connection_duration_seconds_sum{@http}[5m]))"
            " / (sum by (endpoint) (rate(websocket_connection_duration_seconds_count{@http}[5m])) > 0)",
            "{{endpoint}}",
        ),
        unit="s",
        legend="names",
        no_value=NO_SOCKETS,
    ),
)

DASHBOARD = dashboard(
    "HTTP",
    "Rate, errors and duration of requests, by endpoint; what fails; who is active. Rates and percentiles are "
    "averages of 5 minutes.",
    variables=(*VARIABLES, STREAMING, IGNORED),
    rows=(
        Row("", sixths(STRIP)),
        Row("Rate, errors, duration", thirds(RED, 7)),
        Row("Endpoints", full(ENDPOINTS, 9)),
        Row("Errors", halves(FAILURES, 7)),
        Row("Response time", halves(DURATIONS)),
        Row("Objectives", halves(OBJECTIVES, 7)),
        Row("Users and concurrency", halves(USERS, 7)),
        Row("Sizes, limits, instances", thirds(SIZES_AND_LIMITS), collapsed=True),
        Row("WebSockets", quarters(WEBSOCKETS, 7), collapsed=True),
    ),
)
