"""What the dashboards share: variables, selectors, colours, thresholds, annotations, links."""

from __future__ import annotations

from .model import Annotation, Dashboard, Json, Link, Row, Variable

# The objectives. The rules in prometheus/rules hold the same numbers; a test keeps the two together.
SLO_ERROR_RATIO = 0.001  # 99.9 % of requests succeed, over 30 days
SLO_SLOW_RATIO = 0.01  # 99 % of requests are faster than SLO_LATENCY, over 30 days
SLO_LATENCY = 0.5  # seconds; a bucket bound of http_request_duration_seconds

# One meaning, one colour, on all dashboards.
STATUS_COLOURS = {"1xx": "text", "2xx": "green", "3xx": "blue", "4xx": "yellow", "5xx": "red"}
TOKEN_COLOURS = {"input": "blue", "output": "purple"}
LATENCY_COLOURS = {"average": "text", "p50": "green", "p90": "yellow", "p95": "orange", "p99": "red"}
POOL_COLOURS = {"used": "orange", "idle": "green", "pending": "red"}
WINDOW_COLOURS = {"1m": "light-blue", "5m": "blue", "15m": "semi-dark-blue", "1h": "dark-blue"}
IN, OUT = "blue", "purple"  # received and sent, read and written

# Every variable means the same on every dashboard, so links carry the choice from one to the next.
JOB = Variable("job", "Service", "label_values(app_info, job)", "Prometheus job of the service")
INSTANCE = Variable(
    "instance", "Instance", 'label_values(app_info{job=~"$job"}, instance)', "Replicas of the service, as scraped"
)
NODE = Variable("node", "Host", "label_values(node_uname_info, instance)", "Hosts, as node_exporter is scraped")
SERVER = Variable("server", "PostgreSQL", "label_values(pg_up, instance)", "PostgreSQL servers, by their exporter")

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
    parameters = "${__url_time_range}&${__all_variables}" + (f"&{extra}" if extra else "")
    return Link(title or f"Open {to}", f"/d/{UIDS[to]}?{parameters}")


FIRING_ALERTS = Annotation(
    "Alerts",
    'ALERTS{alertstate="firing", severity=~"critical|warning"}',
    "red",
    "{{alertname}} is firing",
    "{{severity}}, {{area}} {{instance}}",
    "alertname,severity,area",
)
LOAD_TEST = Annotation("Load tests", "max by (instance) (locust_users) > 0", "purple", "Load test", "from {{instance}}")


def dashboard(
    name: str,
    description: str,
    *,
    variables: tuple[Variable, ...],
    rows: tuple[Row, ...],
    annotations: tuple[Annotation, ...] = (),
    time_from: str = "now-1h",
) -> Dashboard:
    return Dashboard(
        uid=UIDS[name],
        title=f"Sightline / {name}",
        description=description,
        tags=("sightline",),
        variables=variables,
        annotations=(FIRING_ALERTS, *annotations, LOAD_TEST),
        links=tuple(_top_link(other, uid) for other, uid in UIDS.items() if other != name),
        rows=rows,
        time_from=time_from,
    )


def _top_link(name: str, uid: str) -> Json:
    return {
        "type": "link",
        "title": name,
        "tooltip": f"Open {name}, with the same variables and time",
        "url": f"/d/{uid}",
        "icon": "dashboard",
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tags": [],
    }
