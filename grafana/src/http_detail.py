"""HTTP, below the endpoints: what fails, how long it takes, objectives, users, sizes, WebSockets."""

from __future__ import annotations

from prometheus.src import recorded
from prometheus.src.settings import SETTINGS

from . import slo
from .common import ENDPOINT, IN, INSTANCE, JOB, OUT, SLO_COLOURS, only
from .common_panels import (
    INTERPOLATED,
    NOT_COUNTED,
    OBJECTIVE_LINE,
    SERVER_ERRORS,
    active_users,
    objective,
    requests_by_status,
)
from .looks import PER_MINUTE, below_zero, coloured
from .model import Panel, Query
from .panels import heatmap, timeseries
from .promql import happened, heat, mean, occurrences, or_named, or_zero, percentile, total
from .tables import Column, table

# Without 499: a client that disconnected is not an error.
CLIENT_ERRORS = 'status_code=~"4..", status_code!="499"'
REQUESTS = recorded.REQUESTS.of("@judged")
SLOW_MEANS = (
    "Share of requests that do not fail and that the latency objective counts as slow: more than "
    f"{slo.LATENCY:g} s to the last byte, for endpoints that wait for a model more than {slo.START:g} s to the first."
)
ANY = 'last_over_time(job_endpoint:http_requests:rate5m{job=~"$job"}[$__range] @ end()) > 0'
VARIABLES = (JOB, INSTANCE, ENDPOINT)
ONE_ENDPOINT = only("Only ${__field.labels.endpoint}", "HTTP", VARIABLES, ENDPOINT, "__field.labels.endpoint")


def slow_share(*by: str) -> str:
    """Share of slow requests among those that do not fail; no value if there are none."""

    def within(whole: str, start: str) -> str:
        whole_answers = recorded.RESPONSE.buckets.of(f'@judged, endpoint!~"$streaming", le="{whole}"')
        streams = recorded.TTFB.buckets.of(f'@judged, endpoint=~"$streaming", le="{start}"')
        return total(f"{whole_answers} or {streams}", *by)

    judged = within("+Inf", "+Inf")
    in_time = within(SETTINGS.latency_le, SETTINGS.start_le)
    return f"clamp_min({judged} - {in_time}, 0) / ({judged} > 0)"


def duration_by_endpoint(title: str, description: str, expr: str) -> Panel:
    return timeseries(
        title,
        description,
        Query(expr, "{{endpoint}}"),
        unit="s",
        log=True,
        legend="right",
        links=(ONE_ENDPOINT,),
        no_value="No requests in this range",
    )


def errors_by_endpoint(title: str, description: str, matchers: str, shades: str) -> Panel:
    errors = happened(recorded.REQUESTS, "http_requests_total", "status_code", "endpoint", matchers=matchers)
    return timeseries(
        title,
        description,
        Query(errors, "{{status_code}} {{endpoint}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades=shades,
        legend="right",
        links=(ONE_ENDPOINT,),
    )


FAILURES = (
    errors_by_endpoint(
        "Server errors by endpoint",
        "Responses per minute with a 5xx status, by endpoint and status.",
        f"@judged, {SERVER_ERRORS}",
        "red",
    ),
    errors_by_endpoint(
        "Client errors by endpoint",
        "Responses per minute with a 4xx status, by endpoint and status. 499: the client disconnected early; "
        "unmatched: no route for the path.",
        '@http, status_code=~"4.."',
        "yellow",
    ),
    table(
        "Exceptions",
        "Exceptions that no handler caught, and how often they occurred in the time range.",
        occurrences("http_exceptions_total", "@http", "exception", "method", "endpoint"),
        unit="none",
        columns=(
            Column("exception", "Exception"),
            Column("method", "Method", width=70),
            Column("endpoint", "Endpoint"),
            Column("Value", "Occurrences", unit="none", width=112, bar=True, decimals=0),
        ),
        sort_by=(("Occurrences", True),),
        no_value="No exceptions in this range",
    ),
    requests_by_status("@judged"),
)

DURATIONS = (
    heatmap(
        "Response time distribution",
        "Requests per second in each bucket of response time, all endpoints. Two bands indicate two kinds of requests.",
        heat(recorded.RESPONSE, "@judged"),
        unit="s",
    ),
    duration_by_endpoint(
        "Response time p95 by endpoint",
        f"95 of 100 requests of the endpoint are answered within this time. {INTERPOLATED}",
        percentile(0.95, recorded.RESPONSE, "endpoint", matchers="@judged"),
    ),
    duration_by_endpoint(
        "TTFB p95 by endpoint",
        f"Time to first byte, until the response starts: for a stream, how long a user waits for it. {INTERPOLATED}",
        percentile(0.95, recorded.TTFB, "endpoint", matchers="@judged"),
    ),
    duration_by_endpoint(
        "Average response time by endpoint",
        "Average time to the last byte of the response.",
        mean(recorded.RESPONSE, "endpoint", matchers="@judged"),
    ),
)

OBJECTIVES = (
    timeseries(
        "Burn rate by window",
        "How many times faster than sustainable the error budget is spent, of all endpoints together. At the line, "
        "the burn rate over one hour pages on-call.",
        tuple(
            Query(
                f'max by (slo) (job_slo:error_budget_burn:rate{window}{{job=~"$job"}})',
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
        no_value=NOT_COUNTED,
    ),
    timeseries(
        "Slow requests by endpoint",
        f"{SLOW_MEANS} The line is the objective.",
        (
            Query(or_named(slow_share("endpoint"), "endpoint", ANY, "no requests"), "{{endpoint}}"),
            objective("latency"),
        ),
        unit="percentunit",
        overrides=OBJECTIVE_LINE,
        legend="right",
        links=(ONE_ENDPOINT,),
    ),
)

USERS = (
    active_users(),
    timeseries(
        "Requests in progress",
        "Requests in progress, by endpoint. A steady increase means that they no longer complete.",
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
        "`overflow`; more than 0 means that a label grows without bound. Unshared: series that workers count "
        "locally because the shared folder is full.",
        (
            Query(or_zero("60 * sum(rate(http_metrics_overflow_total{@app}[5m]))"), "overflow"),
            Query(or_zero("sum(telemetry_unshared_series{@app})"), "unshared"),
        ),
        unit="none",
        overrides=coloured({"overflow": "red", "unshared": "orange"}),
    ),
    *(
        timeseries(
            f"{which} size by endpoint",
            f"Average size of {which.lower()} bodies.",
            Query(f"sum by (endpoint) ({size.of('@judged')}) / (sum by (endpoint) ({REQUESTS}) > 0)", "{{endpoint}}"),
            unit="decbytes",
            no_value="No requests in this range",
        )
        for which, size in (("Request", recorded.RECEIVED), ("Response", recorded.SENT))
    ),
    timeseries(
        "Request rate by instance",
        "Requests per second of each replica. The load should be even.",
        Query(
            or_named("sum by (instance) (instance:http_requests:rate5m{@app})", "instance", ANY, "no requests"),
            "{{instance}}",
        ),
        unit="reqps",
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
        no_value=NO_SOCKETS,
    ),
    timeseries(
        "WebSockets open",
        "Connections that were accepted and are open, by endpoint.",
        Query("sum by (endpoint) (websocket_connections_open{@http})", "{{endpoint}}"),
        unit="none",
        stacked=True,
        no_value=NO_SOCKETS,
    ),
    timeseries(
        "WebSockets closed",
        "Connections that ended per minute, by close code: 1006 is without a close frame, 1011 an exception.",
        Query("60 * sum by (code) (rate(websocket_closed_total{@http}[5m]))", "{{code}}"),
        unit=PER_MINUTE,
        stacked=True,
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
        no_value=NO_SOCKETS,
    ),
)
