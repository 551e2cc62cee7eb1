"""HTTP: rate, errors and duration by endpoint, and who uses the service."""

from __future__ import annotations

from prometheus.src import recorded

from . import bounds, slo
from .common import ENDPOINT, IGNORED, STREAMING, dashboard, only
from .common_panels import (
    SERVER_ERRORS,
    error_rate,
    error_rate_by_endpoint,
    response_p95,
    response_time,
    service_stat,
    worst_endpoint,
)
from .http_detail import (
    ANY,
    CLIENT_ERRORS,
    DURATIONS,
    FAILURES,
    OBJECTIVES,
    ONE_ENDPOINT,
    REQUESTS,
    SIZES_AND_LIMITS,
    SLOW_MEANS,
    USERS,
    VARIABLES,
    WEBSOCKETS,
    slow_share,
)
from .http_proxy import PROXY
from .layout import full, halves, quarters, sixths, thirds
from .looks import Steps
from .model import Query, Row
from .panels import timeseries
from .promql import SERVICE, fraction, http_outcomes, or_named, or_zero, quantile, share, speed, total
from .tables import Column, table

# An endpoint that waits for a model would dominate the percentiles; it is included only if it is selected.
QUICK = ('@judged, endpoint!~"$streaming"', '@judged, job!~"$endpoint"')


STRIP = (
    service_stat(
        "Requests",
        "Requests per second that the service answers, average of 5 minutes.",
        or_zero(f"sum({REQUESTS})"),
        unit="reqps",
        decimals=1,
    ),
    error_rate("5xx errors", "@judged", QUICK),
    worst_endpoint("@judged", QUICK),
    service_stat(
        "4xx errors",
        "Share of requests answered with a 4xx status, average of 5 minutes, without 499 (client disconnected). "
        "Clients cause these; a jump often follows a release.",
        share(recorded.REQUESTS.of(f"@judged, {CLIENT_ERRORS}"), REQUESTS, http_outcomes("@judged", QUICK)),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.1, 0.3),
        no_value="idle",
    ),
    response_p95(matchers=QUICK),
    service_stat(
        "Slow share",
        f"{SLOW_MEANS} Average of 5 minutes. The objective allows {100 * slo.SLOW_RATIO:g} %.",
        speed(slow_share(), http_outcomes("@judged", QUICK)),
        unit="percentunit",
        decimals=2,
        steps=Steps(slo.SLOW_RATIO, 10 * slo.SLOW_RATIO),
        no_value="idle",
    ),
)

RED = (
    timeseries(
        "Request rate by endpoint",
        "Requests per second of each route template.",
        Query(or_named(f"sum by (endpoint) ({REQUESTS})", "endpoint", ANY, "no requests"), "{{endpoint}}"),
        unit="reqps",
        links=(ONE_ENDPOINT,),
    ),
    error_rate_by_endpoint("@judged", ONE_ENDPOINT),
    response_time("Response time", matchers=QUICK),
)

BY = ("method", "endpoint")
# Also by method, from raw series: a table queries a single point in time, for which raw buckets are fast to read.
DURATION = "request_duration_seconds"
RAW_REQUESTS = "rate(http_requests_total{@judged}[5m])"
RAW_ERRORS = f"rate(http_requests_total{{@judged, {SERVER_ERRORS}}}[5m])"
RAW_CLIENT_ERRORS = f"rate(http_requests_total{{@judged, {CLIENT_ERRORS}}}[5m])"


def raw_successes(part: str, *by: str) -> str:
    """The rate of requests that do not fail."""
    return recorded.difference(
        *(
            total(f"rate({name}_{part}{{@judged}}[5m])", *BY, *by)
            for name in (f"http_{DURATION}", f"http_failed_{DURATION}")
        )
    )


ENDPOINTS = (
    table(
        "Endpoints",
        "Every endpoint at the end of the time range; times are those of requests that did not fail. Click one to "
        "filter the dashboard by it.",
        (
            f"sum by (method, endpoint) ({RAW_REQUESTS})",
            fraction(RAW_ERRORS, RAW_REQUESTS, *BY),
            fraction(RAW_CLIENT_ERRORS, RAW_REQUESTS, *BY),
            f"{raw_successes('sum')} / ({raw_successes('count')} > 0)",
            *(quantile(q, raw_successes("bucket", "le"), *BY) for q in (0.5, 0.95, 0.99)),
            "sum by (method, endpoint) (http_requests_in_progress{@judged})"
            " and on (method, endpoint) http_requests_total{@judged}",
        ),
        unit="short",
        columns=(
            Column("method", "Method", width=75),
            Column(
                "endpoint",
                "Endpoint",
                links=(only("Only this endpoint", "HTTP", VARIABLES, ENDPOINT, "__value.text"),),
            ),
            Column("Value #A", "Requests", unit="reqps", width=120, bar=True, decimals=2),
            Column("Value #B", "5xx", unit="percentunit", width=75, steps=slo.ERROR_STEPS, decimals=2),
            Column("Value #C", "4xx", unit="percentunit", width=70, steps=Steps(0.1, 0.3), decimals=1),
            Column("Value #D", "Average", unit="s", width=80),
            Column("Value #E", "p50", unit="s", width=75, bounds=bounds.RESPONSE),
            Column("Value #F", "p95", unit="s", width=75, bounds=bounds.RESPONSE),
            Column("Value #G", "p99", unit="s", width=75, bounds=bounds.RESPONSE),
            Column("Value #H", "In progress", unit="none", width=95),
        ),
        sort_by=(("Requests", True),),
        no_value="No requests yet, or the service does not answer",
        source=SERVICE,
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
        Row("Proxy", quarters(PROXY, 8), collapsed=True),
        Row("WebSockets", halves(WEBSOCKETS, 7), collapsed=True),
    ),
)
