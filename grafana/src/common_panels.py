"""Panels that several dashboards have."""

from __future__ import annotations

from functools import partial

from prometheus.src import recorded
from prometheus.src.recorded import Histogram

from . import bounds, slo
from .common import LATENCY_COLOURS, STATUS_COLOURS, WINDOW_COLOURS
from .looks import Steps, coloured, dashed, values
from .model import Link, Panel, Query
from .panels import stat, timeseries
from .promql import (
    SERVICE,
    WATCHDOG,
    Matchers,
    by_status_class,
    each,
    exemplars,
    http_outcomes,
    mean,
    moved,
    occurring,
    or_zero,
    percentile,
    ratio,
    share,
    speed,
    total,
)
from .tables import Column, table

service_stat = partial(stat, source=SERVICE)  # a tile of what the service counts


# Prometheus serves the runbooks. Through Grafana's data source proxy they can be opened wherever Grafana can be opened,
# whatever Prometheus' address is.
RUNBOOK = Link(
    "Runbook",
    "/api/datasources/proxy/uid/${datasource}/user/runbooks/${__value.text}.md",
    new_tab=True,
)
# The labels that distinguish alerts of the same name.
_WHERE = (
    '"job", "slo", "window", "endpoint", "exception", "provider", "model", "query_name", "pool", "datname", '
    '"device", "mountpoint", "instance"'
)
# Alerts of other services than the chosen ones are left out; those of hosts, databases and Prometheus stay.
_OTHERS = 'unless on (job) (app_info unless app_info{job=~"$job"})'


# Shown if nothing else fires; it depends on the Watchdog, which always fires.
_NOTHING_ELSE = (
    'label_replace(time() - min by (alertname, severity) (ALERTS_FOR_STATE{alertname="Watchdog"}), '
    '"where", "nothing else fires", "", "")'
)


def _alerts_table(others: str) -> Panel:
    return table(
        "Firing alerts",
        "Alerts of severity warning or critical, of the chosen services and of what they run on, and for how long "
        "their condition has held; if there are none, the Watchdog, which always fires. A click on a name opens its "
        "runbook, a click on a column header sorts by it.",
        f"label_join((time() - ALERTS_FOR_STATE {others}) and ignoring (alertstate) "
        'ALERTS{alertstate="firing", severity=~"critical|warning"}, '
        f'"where", " ", {_WHERE}) or on () {_NOTHING_ELSE}',
        unit="s",
        columns=(
            Column(
                "severity",
                "Severity",
                width=72,
                mappings=(
                    values(
                        {"critical": ("critical", "red"), "warning": ("warning", "orange"), "none": ("none", "green")}
                    ),
                ),
            ),
            Column("alertname", "Alert", links=(RUNBOOK,)),
            Column("where", "Where"),
            Column("Value", "For", unit="s", width=66, decimals=0),
        ),
        sort_by=(("Severity", False), ("For", True)),  # "critical" comes before "warning"
        no_value="Unknown: no rules are evaluated, or Prometheus does not respond",
    )


ALERTS_TABLE = _alerts_table(_OTHERS)
ALL_ALERTS_TABLE = _alerts_table("")


def firing_alerts(*links: Link, others: str = _OTHERS) -> tuple[Panel, Panel]:
    """Critical alerts page on-call, so one is red; any number of warnings is orange."""
    return tuple(  # type: ignore[return-value]
        stat(
            title,
            f"Alerts of severity {severity} that fire now.",
            or_zero(f'count(ALERTS{{alertstate="firing", severity="{severity}"}} {others})', WATCHDOG),
            unit="none",
            steps=steps,
            no_value="no rules",
            links=links,
        )
        for title, severity, steps in (
            ("Critical", "critical", Steps(None, 1)),
            ("Warnings", "warning", Steps(1, None)),
        )
    )


def alerts(*links: Link) -> Panel:
    """Both severities in one tile: how many critical alerts fire, if none, how many warnings."""

    def firing(severity: str, word: str, value: int) -> str:
        counts = f'count_values("count", count(ALERTS{{alertstate="firing", severity="{severity}"}} {_OTHERS}))'
        return f'label_replace({counts} * 0 + {value}, "state", "$1 {word}", "count", "(.*)")'

    none = f'label_replace(0 * max({WATCHDOG}), "state", "none", "", "")'
    return stat(
        "Alerts",
        "Critical alerts that fire now, which page on-call; if there are none, warnings. The table below lists "
        "both. If no rules are evaluated, this is unknown.",
        f"{firing('critical', 'critical', 2)} or on () {firing('warning', 'warn', 1)} or on () {none}",
        unit="none",
        steps=Steps(1, 2),
        name="state",
        no_value="no rules",
        links=links,
    )


def up_of(
    title: str, description: str, up: str, no_value: str, *links: Link, value: str = "avg(%)", unseen: str = ""
) -> Panel:
    """The number that is up, of all, as 2/2: green if all are, red if `value` is below a half.

    up: 0 or 1 for each. unseen: series of exporters that do not respond, whose state is unknown ("no exporter").
    """
    counts = f'count_values("up", sum({up})) * on () group_left (known) count_values("known", count({up}))'
    shown = f"{counts} * on () group_left () ({value.replace('%', up)})"
    shown = f'label_join({shown}, "state", "/", "up", "known")'
    if unseen:
        shown = f'label_replace(0 * count({unseen}) + 0.5, "state", "no exporter", "", "") or on () {shown}'
    return stat(
        title,
        description,
        shown,
        unit="none",
        steps=Steps(1, 0.5),
        name="state",
        no_value=no_value,
        links=links,
    )


# Of all targets, whatever is chosen.
_TARGETS = 'up{job!="locust"}'


def targets_up(*links: Link) -> Panel:
    return up_of(
        "Targets up",
        "Targets that respond to scrapes, of all: replicas, exporters, the proxy, Alertmanager and so on; Locust is "
        "optional. Orange while some do not respond, red while a job has none that responds: the state of what it "
        "monitors is unknown.",
        _TARGETS,
        "none",
        *links,
        value=f"(min(max by (job) ({_TARGETS})) + min(%)) / 2",
    )


def active_users(*links: Link) -> Panel:
    """Users in all windows, in the order of their length."""
    return timeseries(
        "Active users",
        "Distinct users in each window. Instances share users, so the maximum is shown, a lower bound. Counting "
        "restarts with the service, for example after a deploy.",
        tuple(
            Query("max(" + recorded.ACTIVE_USERS.of(f'@app, window="{window}"') + ")", window)
            for window in WINDOW_COLOURS
        ),
        unit="none",
        overrides=coloured(WINDOW_COLOURS),
        links=links,
    )


def average_and_percentiles(
    histogram: Histogram, *percentiles: float, matchers: Matchers = "@app"
) -> tuple[Query, ...]:
    """Average and percentiles of what a recorded histogram observed; 50, 95 and 99 by default."""
    return (
        Query(mean(histogram, matchers=matchers), "average"),
        *percentile_lines(histogram, *(percentiles or (0.5, 0.95, 0.99)), matchers=matchers),
    )


def percentile_lines(histogram: Histogram, *percentiles: float, matchers: Matchers = "@app") -> tuple[Query, ...]:
    return tuple(Query(percentile(q, histogram, matchers=matchers), f"p{q * 100:g}") for q in percentiles)


NOT_COUNTED = "Requests have not been counted yet, or no rules are loaded"
INTERPOLATED = "Percentiles are interpolated between the histogram's bounds."


def response_p95(*links: Link, matchers: Matchers = "@quick") -> Panel:
    return service_stat(
        "HTTP p95",
        "95 of 100 requests that do not fail are answered within this time, average of 5 minutes, as the service "
        f"measures it; idle where none succeeded within the last minute. {slo.WITHOUT_STREAMING}",
        speed(percentile(0.95, recorded.RESPONSE, matchers=matchers), http_outcomes(matchers)),
        unit="s",
        steps=Steps(slo.LATENCY / 2, slo.LATENCY),
        no_value="idle",
        bounds=bounds.RESPONSE,
        links=links,
    )


SERVER_ERRORS = 'status_code=~"5.."'


def error_ratio(matchers: str, *by: str) -> str:
    """Share of requests with a 5xx status by endpoint, and by other labels."""
    failed = recorded.REQUESTS.of(f"{matchers}, {SERVER_ERRORS}")
    return ratio(failed, recorded.REQUESTS.of(matchers), *by, "endpoint")


def error_rate(title: str, matchers: str, quick: Matchers, *links: Link) -> Panel:
    """quick: as of `http_outcomes`."""
    return service_stat(
        title,
        "Share of requests answered with a 5xx status, average of 5 minutes. Orange at the objective, red at ten "
        "times as much.",
        share(
            recorded.REQUESTS.of(f"{matchers}, {SERVER_ERRORS}"),
            recorded.REQUESTS.of(matchers),
            http_outcomes(matchers, quick),
        ),
        unit="percentunit",
        decimals=2,
        steps=slo.ERROR_STEPS,
        no_value="idle",
        links=links,
    )


def worst_endpoint(matchers: str, quick: Matchers, *links: Link) -> Panel:
    """quick: as of `http_outcomes`."""
    outcomes, requests = http_outcomes(matchers, quick), total(recorded.REQUESTS.of(matchers))
    waiting, well = (
        f'label_replace({expr}, "endpoint", "{word}", "", "")'
        for expr, word in ((outcomes.waiting, "all"), (f"0 * ({requests} > 0)", "none fails"))
    )
    red = slo.threshold("endpoint_error_ratio")
    return service_stat(
        "Worst 5xx",
        "The endpoint with the largest share of 5xx responses, average of 5 minutes: a failing endpoint with little "
        f"traffic does not show in the total. Orange from the objective on, red from {100 * red:g} % on.",
        f"{waiting} or on () topk(1, ({error_ratio(matchers, 'job')}) > 0) or on () {well}",
        unit="percentunit",
        decimals=2,
        steps=Steps(slo.ERROR_RATIO, red),
        name="endpoint",
        with_value=True,
        no_value="idle",
        links=links,
    )


def response_time(
    title: str,
    *links: Link,
    histogram: Histogram = recorded.RESPONSE,
    matchers: Matchers = "@quick",
) -> Panel:
    # Dots where they matter: a trace each second and endpoint of a busy service would hide the lines.
    quick = "|".join(str(bound).replace(".", "[.]") for bound in bounds.RESPONSE if bound <= slo.LATENCY / 2)
    return timeseries(
        title,
        "To the last byte of the response, average and percentiles of requests that do not fail, as the service "
        f"measures it. {slo.WITHOUT_STREAMING} The line is the latency objective. "
        f"{INTERPOLATED} Dots are requests that took longer than half of that, and whose trace the service names "
        "(exemplars).",
        (
            *average_and_percentiles(histogram, matchers=matchers),
            Query(
                exemplars(*(f'http_request_duration_seconds_bucket{{{one}, le!~"{quick}"}}' for one in each(matchers))),
                "traces",
                exemplar=True,
            ),
        ),
        unit="s",
        log=True,
        limit=slo.LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        links=links,
        no_value="No requests in this range",
    )


def objective(slo_name: str) -> Query:
    """The share of bad requests that an objective allows, from the recording rules; a dashed red line."""
    return Query(f'max(1 - sightline:slo_objective:ratio{{slo="{slo_name}"}})', "objective")


OBJECTIVE_LINE = dashed("objective", colour="red", links=[])  # it is no endpoint that a click could lead to


def requests_by_status(matchers: str, *links: Link) -> Panel:
    return timeseries(
        "Request rate by status",
        "Requests per second by class of status.",
        Query(by_status_class(recorded.REQUESTS, matchers), "{{class}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured(STATUS_COLOURS),
        links=links,
    )


def error_rate_by_endpoint(matchers: str, *links: Link) -> Panel:
    errors = moved(recorded.REQUESTS, "http_requests_total", f"{matchers}, {SERVER_ERRORS}")
    return timeseries(
        "Error rate by endpoint",
        "Share of requests answered with a 5xx status, for endpoints with errors. The line is the objective: an error "
        f"rate that stays above it spends the error budget of {slo.BUDGET_DAYS} days too fast.",
        (Query(occurring(error_ratio(matchers), errors, "endpoint"), "{{endpoint}}"), objective("availability")),
        unit="percentunit",
        overrides=OBJECTIVE_LINE,
        links=links,
    )
