"""What the dashboards share: variables, selectors, colours, thresholds, annotations, links."""

from __future__ import annotations

from prometheus.src.settings import SETTINGS

from .model import Annotation, Constant, Dashboard, Json, Link, Panel, Query, Row, Variable
from .panels import Column, Legend, Steps, coloured, dashed, stat, table, timeseries, values
from .promql import PROMETHEUS, mean, or_zero, quantile

# The objectives, as prometheus/slo.toml has them.
SLO_ERROR_RATIO = SETTINGS.objectives["availability"].budget
SLO_SLOW_RATIO = SETTINGS.objectives["latency"].budget
SLO_LATENCY = SETTINGS.latency_seconds
SLO_START = f"{SETTINGS.start_seconds:g}"

ERROR_STEPS = Steps(SLO_ERROR_RATIO, 10 * SLO_ERROR_RATIO)  # orange from the objective on

BURN_LIMIT = SETTINGS.page_factor  # times too fast, over an hour: the alert that pages


def red_at(threshold: str, orange: float) -> Steps:
    """Red where an alert fires, by the name of its threshold in slo.toml; orange from that share of it on."""
    limit = SETTINGS.thresholds[threshold]
    return Steps(round(orange * limit, 10), limit)


# One meaning, one colour, on all dashboards.
SLO_COLOURS = {"availability": "green", "latency": "blue"}
STATUS_COLOURS = {"1xx": "text", "2xx": "green", "3xx": "blue", "4xx": "yellow", "5xx": "red"}
TOKEN_COLOURS = {"input": "blue", "output": "purple"}
LATENCY_COLOURS = {"average": "text", "p50": "green", "p90": "yellow", "p95": "orange", "p99": "red"}
OUTCOME_COLOURS = {"commit": "green", "rollback": "yellow", "commit_failed": "red"}
POOL_COLOURS = {"used": "orange", "idle": "green", "pending": "red"}
WINDOW_COLOURS = {"1m": "green", "5m": "blue", "15m": "purple", "1h": "text"}
IN, OUT = "blue", "purple"  # received and sent, read and written

# Every variable means the same on every dashboard, so links carry the choice from one to the next.
JOB = Variable("job", "Service", "label_values(app_info, job)", "Prometheus job of the service")
INSTANCE = Variable(
    "instance", "Instance", 'label_values(app_info{job=~"$job"}, instance)', "Replicas of the service, as scraped"
)
ENDPOINT = Variable(
    "endpoint",
    "Endpoint",
    'label_values(http_requests_total{job=~"$job", @people}, endpoint)',
    "Route templates of the service",
)
PROVIDER = Variable("provider", "Provider", 'label_values(llm_requests_total{job=~"$job"}, provider)', "Who serves it")
MODEL = Variable(
    "model",
    "Model",
    'label_values(llm_requests_total{job=~"$job", provider=~"$provider"}, model)',
    "Language models as asked for; unlisted ones are `other`",
)
POOL = Variable(
    "pool", "Pool", 'label_values(db_pool_connections_max{job=~"$job"}, pool)', "Connection pools of the service"
)
NODE = Variable("node", "Host", "label_values(node_uname_info, instance)", "Hosts, as node_exporter is scraped")
SERVER = Variable("server", "PostgreSQL", "label_values(pg_up, instance)", "PostgreSQL servers, by their exporter")
DATNAME = Variable(
    "datname",
    "Database",
    'label_values(pg_stat_database_xact_commit{instance=~"$server", datname!~"template.*"}, datname)',
    "Databases of the PostgreSQL servers",
)

# The endpoints that the objectives leave out (no scrape, no probe, no drill's switches, no scanner's guesses), and
# those that are judged by when their answer starts.
IGNORED = Constant(
    "ignored",
    "Ignored endpoints",
    SETTINGS.ignored,
    "Regular expression of the endpoints that the objectives leave out, as in the recording rules",
)
STREAMING = Constant(
    "streaming",
    "Streaming endpoints",
    SETTINGS.streaming,
    "Regular expression of the endpoints that wait for a model, as in the recording rules",
)

# On Monitoring, job and instance are those of any target; everywhere else they are the service's.
TARGET_JOB = Variable("job", "Job", "label_values(up, job)", "Scrape jobs of Prometheus")
TARGET = Variable("instance", "Target", 'label_values(up{job=~"$job"}, instance)', "Targets of the scrape jobs")

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


def only(title: str, on: str, variables: tuple[Variable, ...], chosen: Variable, value: str) -> Link:
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
# What tells the alerts of one name apart.
_WHERE = '"endpoint", "exception", "query_name", "pool", "model", "datname", "device", "mountpoint", "instance"'
ALERTS_TABLE = table(
    "Firing alerts",
    "Alerts of severity warning or critical, and for how long their condition has held. A click on a name opens its "
    "runbook, a click on a column's head sorts by it.",
    Query(
        "label_join(time() - ALERTS_FOR_STATE and ignoring (alertstate) "
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
    width=12,
    sort_by=(("Severity", False), ("For", True)),  # "critical" comes before "warning"
    no_value="Nothing is firing",
)


def firing(title: str, severity: str, steps: Steps, *links: Link) -> Panel:
    """How many alerts of one severity fire now."""
    return stat(
        title,
        f"Alerts of severity {severity} that fire now.",
        Query(or_zero(f'count(ALERTS{{alertstate="firing", severity="{severity}"}})', PROMETHEUS)),
        unit="none",
        steps=steps,
        links=links,
    )


def firing_alerts(*links: Link) -> tuple[Panel, Panel]:
    """Critical alerts call somebody, so one is red; any number of warnings is orange."""
    return (
        firing("Critical alerts", "critical", Steps(None, 1), *links),
        firing("Warnings", "warning", Steps(1, None), *links),
    )


# Where an alert began to fire, not for how long: regions of many alerts would hide the graphs in the very moment in
# which somebody has to read them. All annotations look back as far as their step is long, which Grafana sets by the
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
    switch=False,
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
    switch=False,
)
REBOOTS = Annotation(
    "Reboots",
    "changes(node_boot_time_seconds{@host}[$__rate_interval]) > 0",
    "blue",
    "{{instance}} started",
    switch=False,
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
        tuple(Query(f'max(active_users{{@app, window="{window}"}})', window) for window in WINDOW_COLOURS),
        unit="none",
        overrides=coloured(WINDOW_COLOURS),
        legend=legend,
        links=links,
    )


def average_and_percentiles(histogram: str, *percentiles: float, matchers: str = "@app") -> tuple[Query, ...]:
    """Average and percentiles of what a histogram observed; 50, 95 and 99 unless told."""
    return (
        Query(mean(histogram, matchers=matchers), "average"),
        *(Query(quantile(q, histogram, matchers=matchers), f"p{q * 100:g}") for q in percentiles or (0.5, 0.95, 0.99)),
    )


RESPONSE = "http_request_duration_seconds"
INTERPOLATED = "Below 5 ms, the shortest time that is told apart, percentiles are interpolated."


def response_p95(*links: Link, matchers: str = "@quick") -> Panel:
    return stat(
        "Response p95",
        "95 of 100 requests are answered within this time, as the service measures it. Without endpoints that wait for "
        "a model, such as /chat: see Model p95.",
        Query(quantile(0.95, RESPONSE, matchers=matchers)),
        unit="s",
        steps=Steps(SLO_LATENCY / 2, SLO_LATENCY),
        no_value="idle",
        links=links,
    )


def response_time(title: str, legend: Legend, *links: Link, matchers: str = "@quick") -> Panel:
    return timeseries(
        title,
        "To the last byte of the response, average and percentiles, as the service measures it. Without endpoints that "
        f"wait for a model, such as /chat. The line is the latency objective. {INTERPOLATED}",
        average_and_percentiles(RESPONSE, matchers=matchers),
        unit="s",
        log=True,
        limit=SLO_LATENCY,
        overrides=coloured(LATENCY_COLOURS),
        legend=legend,
        links=links,
        no_value="No requests in this range",
    )


def objective(slo: str) -> Query:
    """The share of bad requests that an objective bears, from the recording rules; a dashed red line."""
    return Query(f'max(1 - sightline:slo_objective:ratio{{slo="{slo}"}})', "objective")


OBJECTIVE_LINE = dashed("objective", colour="red", links=[])  # it is no endpoint that a click could lead to


def dashboard(
    name: str,
    description: str,
    *,
    variables: tuple[Variable | Constant, ...],
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
        "title": "Sightline",
        "tooltip": "",
        "url": "",
        "icon": "external link",
        "asDropdown": tag == "service",
        "includeVars": variables,
        "keepTime": True,
        "targetBlank": False,
        "tags": ["sightline", tag],
    }
