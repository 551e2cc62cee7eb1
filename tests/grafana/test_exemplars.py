"""Exemplars: a real Prometheus keeps the traces that a service names, and finds them by what the panels ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
import yaml

from tests import servers
from tests.grafana.dashboards import DASHBOARDS, ROOT, panels, substituted
from tests.running import wait_until, web_server
from tests.servers import Prometheus

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
QUICK_TRACE = "0af7651916cd43dd8448eb211c80319c"
PANELS = [
    (name, panel["title"], target["expr"])
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    for target in panel["targets"]
    if target["exemplar"]
]


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        duration = 'http_request_duration_seconds_bucket{method="GET",endpoint="/items",le="%s"} %s'
        lines = (
            "# TYPE http_request_duration_seconds histogram",
            duration % ("0.1", 1) + f' # {{trace_id="{QUICK_TRACE}"}} 0.05',
            duration % ("2.5", 2) + f' # {{trace_id="{TRACE}"}} 1.5',
            duration % ("+Inf", 2),
            'http_request_duration_seconds_count{method="GET",endpoint="/items"} 2',
            'http_request_duration_seconds_sum{method="GET",endpoint="/items"} 1.55',
            "# EOF",
            "",
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write("\n".join(lines).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    with web_server(Metrics) as url:
        job = {"job_name": "app", "static_configs": [{"targets": [url.removeprefix("http://")]}]}
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        with servers.prometheus(yaml.safe_dump(config)) as running:
            yield running


def test_response_times_show_exemplars() -> None:
    assert {name for name, title, _ in PANELS} == {"overview", "http", "loadtest"}
    assert all(title.startswith("Response time") for _, title, _ in PANELS)


@pytest.mark.parametrize(("name", "title", "expr"), PANELS, ids=[name for name, *_ in PANELS])
def test_the_trace_of_a_slow_request_is_found(prometheus: Prometheus, name: str, title: str, expr: str) -> None:
    query = substituted(expr)

    def found() -> set[str]:
        now = time.time()
        answer = prometheus.api("query_exemplars", query=query, start=str(now - 3600), end=str(now + 60))
        return {one["labels"]["trace_id"] for series in answer for one in series["exemplars"]}

    assert wait_until(found) == {TRACE}, f"{name}: {title}"
    assert prometheus.query(query) == {}, "it draws no line"


def test_the_data_source_leads_to_the_trace() -> None:
    source = ROOT / "grafana" / "provisioning" / "datasources" / "sightline.yml"
    (prometheus,) = (s for s in yaml.safe_load(source.read_text())["datasources"] if s["type"] == "prometheus")
    (destination,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    # Grafana replaces $TRACE_URL when it starts, and $$ by $: the rest is replaced by each exemplar.
    assert (destination["name"], destination["url"]) == ("trace_id", "${TRACE_URL}$${__value.raw}")
