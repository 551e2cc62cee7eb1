"""What the dashboards share: variables, selectors, colours, thresholds, annotations, links."""

from __future__ import annotations

from .model import Annotation, Dashboard, Json, Link, Panel, Query, Row, Variable
from .panels import Column, Legend, coloured, table, timeseries, values

# The objectives. The rules in prometheus/rules hold the same numbers; a test keeps the two together.
SLO_ERROR_RATIO = 0.001  # 99.9 % of requests succeed, over 30 days
SLO_SLOW_RATIO = 0.01  # 99 % of requests are faster than SLO_LATENCY, over 30 days
SLO_LATENCY = 0.5  # seconds; a bucket bound of http_request_duration_seconds

BURN_LIMIT = 14.4  # times too fast, over an hour: the alert that calls somebody

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


def drill(to: str, extra: str = "", title: str = "") -> Link:
    """A data link to the dashboard called `to` with all variables and the time range; `extra` adds parameters."""
    variables = "" if to == "Monitoring" else "&${__all_variables}"
    parameters = "${__url_time_range}" + variables + (f"&{extra}" if extra else "")
    return Link(title or f"Open {to}", f"/d/{UIDS[to]}?{parameters}")


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
    "runbook.",
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
    sort_by="For",
    no_value="Nothing is firing",
)


# Where an alert began to fire, not for how long: regions of many alerts would hide the graphs in the very moment in
# which somebody has to read them.
_FIRING = 'count by (alertname, severity, area) (ALERTS{{alertstate="firing", severity=~"critical|warning"}}{age})'
FIRING_ALERTS = Annotation(
    "Alerts",
    f"{_FIRING.format(age='')} unless {_FIRING.format(age=' offset 1m')}",
    "red",
    "{{alertname}} begins to fire",
    "{{severity}}, {{area}}",
    "alertname,severity,area",
)
_NEW_VERSION = (
    "count by (job, version) (app_info{{@app}}) unless count by (job, version) (app_info{{@app}} offset {age})"
)
DEPLOYS = Annotation(
    "Deploys",
    _NEW_VERSION.format(age="1m"),
    "green",
    "{{job}} {{version}}",
    "The first instance with version {{version}}",
    switch=False,
)
STARTS = Annotation(
    "Starts",
    "changes(max by (job, instance) (process_start_time_seconds{@app})[1m:15s]) > 0"
    f" unless on (job) ({_NEW_VERSION.format(age='3m')})",  # that one is marked as a deploy
    "blue",
    "{{job}} started",
    "A process of {{instance}} started, with the version it had before",
    switch=False,
)
REBOOTS = Annotation(
    "Reboots", "changes(node_boot_time_seconds{@host}[1m]) > 0", "blue", "{{instance}} started", switch=False
)
LOAD_TEST = Annotation(
    "Load tests", "max by (job) (locust_test_running) > 0", "purple", "Load test", "Locust is at work"
)


def active_users(legend: Legend, *links: Link) -> Panel:
    """Users in all windows, in the order of their length."""
    return timeseries(
        "Active users",
        "Distinct users seen in each window. Instances share users, so the largest one counts: a lower bound.",
        tuple(Query(f'max(active_users{{@app, window="{window}"}})', window) for window in WINDOW_COLOURS),
        unit="none",
        overrides=coloured(WINDOW_COLOURS),
        legend=legend,
        links=links,
    )


def dashboard(
    name: str,
    description: str,
    *,
    variables: tuple[Variable, ...],
    rows: tuple[Row, ...],
    annotations: tuple[Annotation, ...] = (DEPLOYS, STARTS),
    time_from: str = "now-1h",
) -> Dashboard:
    return Dashboard(
        uid=UIDS[name],
        title=f"Sightline / {name}",
        description=description,
        tags=("sightline",),
        variables=variables,
        annotations=(FIRING_ALERTS, *annotations, LOAD_TEST),
        links=tuple(_top_link(other, uid, name) for other, uid in UIDS.items() if other != name),
        rows=rows,
        time_from=time_from,
    )


def _top_link(name: str, uid: str, origin: str) -> Json:
    return {
        "type": "link",
        "title": name,
        "tooltip": f"Open {name} for the same time",
        "url": f"/d/{uid}",
        "icon": "dashboard",
        "asDropdown": False,
        "includeVars": "Monitoring" not in (name, origin),  # its job and instance mean any target
        "keepTime": True,
        "targetBlank": False,
        "tags": [],
    }
