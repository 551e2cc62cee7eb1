"""What the dashboards share: variables, colours, thresholds, annotations, links, and panels that several have."""

from __future__ import annotations

from . import slo
from .document import Dashboard
from .model import Annotation, AnyVariable, Constant, Json, Link, Row, Variable

# Each meaning has the same colour on all dashboards.
SLO_COLOURS = {"availability": "green", "latency": "blue"}
STATUS_COLOURS = {"1xx": "text", "2xx": "green", "3xx": "blue", "4xx": "yellow", "5xx": "red"}
TOKEN_COLOURS = {"input": "blue", "output": "purple"}
LATENCY_COLOURS = {"average": "text", "p50": "green", "p90": "yellow", "p95": "orange", "p99": "red"}
OUTCOME_COLOURS = {"commit": "green", "rollback": "yellow", "commit_failed": "red"}
POOL_COLOURS = {"used": "orange", "idle": "green", "pending": "red"}
WINDOW_COLOURS = {"1m": "green", "5m": "blue", "15m": "purple", "1h": "text"}
IN, OUT = "blue", "purple"  # received and sent, read and written

# Every variable means the same on every dashboard, so links carry the choice from one to the next.
JOB = Variable("job", "Service", "label_values(app_info, job)")
INSTANCE = Variable("instance", "Instance", 'label_values(app_info{job=~"$job"}, instance)')
ENDPOINT = Variable(
    "endpoint", "Endpoint", 'label_values(http_requests_total{job=~"$job", endpoint!~"$ignored"}, endpoint)'
)
PROVIDER = Variable("provider", "Provider", 'label_values(llm_requests_total{job=~"$job"}, provider)')
MODEL = Variable("model", "Model", 'label_values(llm_requests_total{job=~"$job", provider=~"$provider"}, model)')
# Database has the most drop-downs: two of them are single-valued, so that the controls take two lines at 1280 pixels.
POOL = Variable("pool", "Pool", 'label_values(db_pool_connections_max{job=~"$job"}, pool)', multi=False)
NODE = Variable("node", "Host", "label_values(node_uname_info, instance)")
SERVER = Variable("server", "Postgres", "label_values(pg_up, instance)")
DATNAME = Variable(
    "datname",
    "Database",
    'label_values(pg_stat_database_xact_commit{instance=~"$server", datname!~"template.*"}, datname)',
    multi=False,
)

# The endpoints that the objectives exclude (scrapes, probes, fault switches, unmatched paths), and those with an
# objective for the start of the response. The recording rules have the same; a test compares them.
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

    `extra` must not set a variable that this dashboard has: if it is in an address twice, All wins.
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


# Marks where an alert started firing, not how long: the regions of many alerts would hide the graphs during an
# incident. All annotations look back by their step, which Grafana derives from the time range: a fixed minute would
# be too short in a graph of a week. The window of `changes` needs one scrape more.
def _appeared(by: str, selector: str, age: str) -> str:
    """The label sets of `selector` that exist now and did not exist at `age` before."""
    return f"count by ({by}) ({selector}) unless count by ({by}) ({selector} offset {age})"


def _new_version(age: str) -> str:
    """Versions that exist now and did not exist at `age` before.

    If no version was there then, as after a scrape that failed or a stop, one that was there in the hour before is
    not new.
    """
    before = f"count by (job, version) (last_over_time(app_info{{@app}}[1h] offset {age}))"
    gap = f"unless on (job) count by (job) (app_info{{@app}} offset {age})"
    return f"({_appeared('job, version', 'app_info{@app}', age)} unless ({before} {gap}))"


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
    "Load tests", "max by (job) (locust_test_running) > 0", "purple", "Load test", "Locust is running"
)


def dashboard(
    name: str,
    description: str,
    *,
    variables: tuple[AnyVariable, ...],
    rows: tuple[Row, ...],
    annotations: tuple[Annotation, ...] = (DEPLOYS, STARTS),
) -> Dashboard:
    return Dashboard(
        uid=UIDS[name],
        title=f"Sightline / {name}",
        description=description,
        tags=("sightline",),
        variables=variables,
        annotations=(FIRING_ALERTS, *annotations, LOAD_TEST),
        links=(_others(variables=name != "Monitoring"),),
        rows=rows,
    )


def _others(variables: bool) -> Json:
    """A menu of all dashboards with the tag `sightline` that exist: empty for a dashboard that was copied alone.

    variables: whether selections are carried over. On Monitoring, a job may be an exporter, which the others lack.
    """
    return {
        "type": "dashboards",
        "title": "Sightline",
        "tooltip": "",
        "url": "",
        "icon": "external link",
        "asDropdown": True,
        "includeVars": variables,
        "keepTime": True,
        "targetBlank": False,
        "tags": ["sightline"],
    }
