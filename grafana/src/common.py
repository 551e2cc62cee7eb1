"""What the dashboards share: variables, colours, thresholds, annotations, links, and panels that several have."""

from __future__ import annotations

from functools import partial

from prometheus.src import recorded
from prometheus.src.recorded import Histogram

from . import bounds, slo
from .model import Annotation, AnyVariable, Constant, Dashboard, Json, Link, Panel, Query, Row, Variable
from .panels import Column, Legend, Steps, coloured, dashed, stat, table, timeseries, values
from .promql import PROMETHEUS, SERVICE, Matchers, exemplars, http_outcomes, mean, or_failing, or_zero, percentile

# One meaning, one colour, on all dashboards.
SLO_COLOURS = {"availability": "green", "latency": "blue"}
STATUS_COLOURS = {"1xx": "text", "2xx": "green", "3xx": "blue", "4xx": "yellow", "5xx": "red"}
TOKEN_COLOURS = {"input": "blue", "output": "purple"}
LATENCY_COLOURS = {"average": "text", "p50": "green", "p90": "yellow", "p95": "orange", "p99": "red"}
OUTCOME_COLOURS = {"commit": "green", "rollback": "yellow", "commit_failed": "red"}
POOL_COLOURS = {"used": "orange", "idle": "green", "pending": "red"}
WINDOW_COLOURS = {"1m": "green", "5m": "blue", "15m": "purple", "1h": "text"}
IN, OUT = "blue", "purple"  # received and sent, read and written

service_stat = partial(stat, source=SERVICE)  # a tile of what the service counts

# Every variable means the same on every dashboard, so links carry the choice from one to the next.
JOB = Variable("job", "Service", "label_values(app_info, job)")
INSTANCE = Variable("instance", "Instance", 'label_values(app_info{job=~"$job"}, instance)')
ENDPOINT = Variable(
    "endpoint", "Endpoint", 'label_values(http_requests_total{job=~"$job", endpoint!~"$ignored"}, endpoint)'
)
PROVIDER = Variable("provider", "Provider", 'label_values(llm_requests_total{job=~"$job"}, provider)')
MODEL = Variable("model", "Model", 'label_values(llm_requests_total{job=~"$job", provider=~"$provider"}, model)')
POOL = Variable("pool", "Pool", 'label_values(db_pool_connections_max{job=~"$job"}, pool)')
NODE = Variable("node", "Host", "label_values(node_uname_info, instance)")
SERVER = Variable("server", "Postgres", "label_values(pg_up, instance)")
DATNAME = Variable(
    "datname",
    "Database",
    'label_values(pg_stat_database_xact_commit{instance=~"$server", datname!~"template.*"}, datname)',
)

# The endpoints that the objectives leave out (no scrape, no probe, no drill's switches, no scanner's guesses), and
# those that are judged by when their answer starts. The recording rules name the same; a test keeps them together.
IGNORED = Constant(
    "ignored",
    "Ignored endpoints",
    slo.IGNORED,
    "Regular expression of the endpoints that the objectives leave out, as in the recording rules",
)
STREAMING = Constant(
    "streaming",
    "Streaming endpoints",
    slo.STREAMING,
    "Regular expression of the endpoints that wait for a model, as in the recording rules",
)

# On Monitoring, job and instance are those of any target; everywhere else they are the service's.
TARGET_JOB = Variable("job", "Job", "label_values(up, job)")
TARGET = Variable("instance", "Target", 'label_values(up{job=~"$job"}, instance)')

UIDS = {
    "Overview": "sightline-overview",
    "HTTP": "sightline-http",
    "LLM": "sightline-llm",
    "Database": "sightline-database",
    "Host": "sightline-host",
    "Load test": "sightline-loadtest",
    "Monitoring": "sightline-monitoring",
}


_KEEP_TIME = "${__url_time_range}"


def drill(to: str, extra: str = "", title: str = "") -> Link:
    """A data link to the dashboard called `to` with all variables and the time range; `extra` adds parameters.

    `extra` must name no variable that this dashboard has: twice in an address, All would win.
    """
    variables = "" if to == "Monitoring" else "&${__all_variables}"
    return Link(title or f"Open {to}", f"/d/{UIDS[to]}?{_KEEP_TIME}{variables}{f'&{extra}' if extra else ''}")


def only(title: str, on: str, variables: tuple[AnyVariable, ...], chosen: Variable, value: str) -> Link:
    """A data link to the same dashboard for the one `value` of the variable `chosen`, the other variables kept.

    value: what Grafana replaces, such as __value.text.
    """
    kept = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", *(v.name for v in variables if v != chosen)))
    address = f"/d/{UIDS[on]}?{_KEEP_TIME}&{kept}&var-{chosen.name}=${{{value}:percentencode}}"
    return Link(title, address)


# Runbooks lie beside Prometheus, which serves them; through Grafana's way to its data source they are reached from
# wherever Grafana is, whatever Prometheus' address.
RUNBOOK = Link(
    "Runbook",
    "/api/datasources/proxy/uid/${datasource}/user/runbooks/${__value.text}.md",
    new_tab=True,
)
# The labels that distinguish alerts of the same name.
_WHERE = (
    '"job", "slo", "endpoint", "exception", "provider", "model", "query_name", "pool", "datname", '
    '"device", "mountpoint", "instance"'
)
# Alerts of other services than the chosen ones are left out; those of hosts, databases and Prometheus stay.
_OTHERS = 'unless on (job) (app_info unless app_info{job=~"$job"})'


def _alerts_table(others: str) -> Panel:
    return table(
        "Firing alerts",
        "Alerts of severity warning or critical, of the chosen services and of what they run on, and for how long "
        "their condition has held. A click on a name opens its runbook, a click on a column's head sorts by it.",
        Query(
            f"label_join((time() - ALERTS_FOR_STATE {others}) and ignoring (alertstate) "
            'ALERTS{alertstate="firing", severity=~"critical|warning"}, '
            f'"where", " ", {_WHERE})',
            instant=True,
            format="table",
        ),
        unit="s",
        columns=(
            Column(
                "severity",
                "Severity",
                width=85,
                mappings=(values({"critical": ("critical", "red"), "warning": ("warning", "orange")}),),
            ),
            Column("alertname", "Alert", links=(RUNBOOK,)),
            Column("where", "Where"),
            Column("Value", "For", unit="s", width=85, decimals=0),
        ),
        sort_by=(("Severity", False), ("For", True)),  # "critical" comes before "warning"
        no_value="Nothing is firing",
    )


ALERTS_TABLE = _alerts_table(_OTHERS)
ALL_ALERTS_TABLE = _alerts_table("")


def firing_alerts(*links: Link, others: str = _OTHERS) -> tuple[Panel, Panel]:
    """Critical alerts page on-call, so one is red; any number of warnings is orange."""
    return tuple(  # type: ignore[return-value]
        stat(
            title,
            f"Alerts of severity {severity} that fire now.",
            or_zero(f'count(ALERTS{{alertstate="firing", severity="{severity}"}} {others})', PROMETHEUS),
            unit="none",
            steps=steps,
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
        return f'label_replace({counts} * 0 + {value}, "said", "$1 {word}", "count", "(.*)")'

    none = 'label_replace(vector(0), "said", "none", "", "")'
    return stat(
        "Alerts",
        "Critical alerts that fire now, which page on-call; if there are none, warnings. The table below lists both.",
        f"{firing('critical', 'critical', 2)} or on () {firing('warning', 'warn', 1)} or on () {none}",
        unit="none",
        steps=Steps(1, 2),
        name="{{said}}",
        no_value="no data",
        links=links,
    )


def up_of(title: str, description: str, up: str, no_value: str, *links: Link) -> Panel:
    """How many are up of how many there are, as 2/2: green if all, red if half or fewer; `up` has a 0 or 1 for each."""
    counts = f'count_values("up", sum({up})) * on () group_left (known) count_values("known", count({up}))'
    return stat(
        title,
        description,
        f"{counts} * on () group_left () avg({up})",
        unit="none",
        steps=Steps(1, 0.5),
        name="{{up}}/{{known}}",
        no_value=no_value,
        links=links,
    )


# Where an alert began to fire, not for how long: regions of many alerts would hide the graphs just when
# they have to be read. All annotations look back as far as their step is long, which Grafana sets by the
# time range: a fixed minute would be too short in a graph of a week. Of `changes`, the window needs a scrape more.
def _appeared(by: str, selector: str, age: str) -> str:
    """The kinds of `selector` that are there and were not some time before."""
    return f"count by ({by}) ({selector}) unless count by ({by}) ({selector} offset {age})"


def _new_version(age: str) -> str:
    return _appeared("job, version", "app_info{@app}", age)


FIRING_ALERTS = Annotation(
    "Alerts",
    _appeared(
        "alertname, severity, area", 'ALERTS{alertstate="firing", severity=~"critical|warning"}', age="$__interval"
    ),
    "red",
    "{{alertname}} begins to fire",
    "{{severity}}, {{area}}",
    "alertname,severity,area",
)
DEPLOYS = Annotation(
    "Deploys",
    _new_version("$__interval"),
    "green",
    "{{job}} {{version}}",
    "The first instance with version {{version}}",
)
STARTS = Annotation(
    "Starts",
    "changes(max by (job, instance) (process_start_time_seconds{@app})[$__rate_interval:15s]) > 0"
    " and on (job, instance) app_info{@app}"  # of the service, not of the exporters
    # What started with a new version, or minutes after the first one that did, is marked as a deploy.
    + "".join(f" unless on (job) ({_new_version(age)})" for age in ("$__rate_interval", "3m")),
    "blue",
    "{{job}} started",
    "A process of {{instance}} started, with the version it had before",
)
REBOOTS = Annotation(
    "Reboots",
    "changes(node_boot_time_seconds{@host}[$__rate_interval]) > 0",
    "blue",
    "{{instance}} started",
)
LOAD_TEST = Annotation(
    "Load tests", "max by (job) (locust_test_running) > 0", "purple", "Load test", "Locust is at work"
)


def active_users(legend: Legend, *links: Link) -> Panel:
    """Users in all windows, in the order of their length."""
    return timeseries(
        "Active users",
        "Distinct users seen in each window. Instances share users, so the largest one counts: a lower bound. With a "
        "restart, and so with a deploy, counting begins anew.",
        tuple(
            Query("max(" + recorded.ACTIVE_USERS.of(f'@app, window="{window}"') + ")", window)
            for window in WINDOW_COLOURS
        ),
        unit="none",
        overrides=coloured(WINDOW_COLOURS),
        legend=legend,
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


INTERPOLATED = "Percentiles are interpolated between the histogram's bounds."


def response_p95(*links: Link, matchers: Matchers = "@quick", outcomes: str = "@traffic") -> Panel:
    return service_stat(
        "HTTP p95",
        "95 of 100 requests that do not fail are answered within this time, average of 5 minutes, as the service "
        "measures it. Without endpoints that wait for a model, such as /chat.",
        or_failing(percentile(0.95, recorded.RESPONSE, matchers=matchers), *http_outcomes(outcomes)),
        unit="s",
        steps=Steps(slo.LATENCY / 2, slo.LATENCY),
        no_value="idle",
        bounds=bounds.RESPONSE,
        links=links,
    )


def response_time(
    title: str,
    legend: Legend,
    *links: Link,
    histogram: Histogram = recorded.RESPONSE,
    matchers: Matchers = "@quick",
    traced: str = "@traffic",
) -> Panel:
    """traced: matchers of the requests whose traces are shown."""
    return timeseries(
        title,
        "To the last byte of the response, average and percentiles of requests that do not fail, as the service "
        "measures it. Without endpoints that wait for a model, such as /chat. The line is the latency objective. "
        f"{INTERPOLATED} Dots are requests whose trace the service names (exemplars).",
        (
            *average_and_percentiles(histogram, matchers=matchers),
            Query(exemplars(f"http_request_duration_seconds_bucket{{{traced}}}"), "traces", exemplar=True),
        ),
        unit="s",
        log=True,
        limit=slo.LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        legend=legend,
        links=links,
        no_value="No requests in this range",
    )


def objective(slo_name: str) -> Query:
    """The share of bad requests that an objective allows, from the recording rules; a dashed red line."""
    return Query(f'max(1 - sightline:slo_objective:ratio{{slo="{slo_name}"}})', "objective")


OBJECTIVE_LINE = dashed("objective", colour="red", links=[])  # it is no endpoint that a click could lead to


def dashboard(
    name: str,
    description: str,
    *,
    variables: tuple[AnyVariable, ...],
    rows: tuple[Row, ...],
    annotations: tuple[Annotation, ...] = (DEPLOYS, STARTS),
) -> Dashboard:
    own = name == "Monitoring"
    return Dashboard(
        uid=UIDS[name],
        title=f"Sightline / {name}",
        description=description,
        tags=("sightline", "monitoring" if own else "service"),
        variables=variables,
        annotations=(FIRING_ALERTS, *annotations, LOAD_TEST),
        # On Monitoring, job and instance mean any target: they are not carried over.
        links=(_top_link("service", variables=not own), *(() if own else (_top_link("monitoring", variables=False),))),
        rows=rows,
    )


def _top_link(tag: str, variables: bool) -> Json:
    """Links to all dashboards with a tag that there are: a single one that was copied links to none."""
    return {
        "type": "dashboards",
        "title": "Sightline" if tag == "service" else "Monitoring",
        "tooltip": "",
        "url": "",
        "icon": "external link",
        "asDropdown": True,
        "includeVars": variables,
        "keepTime": True,
        "targetBlank": False,
        "tags": ["sightline", tag],
    }
