"""Scraped as the Prometheus Operator does it: its target label `endpoint` must not displace the route's."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ops.paths import PROJECT
from tests import servers
from tests.running import wait_until
from tests.servers import Prometheus
from tests.telemetry.serving import UVICORN, Served, serve

GUIDE = (PROJECT / "docs" / "adopt.md").read_text()
OURS = {"method", "endpoint", "status_code"}
# The labels that the operator gives to the targets of each kind, and where their endpoints are.
KINDS = {
    "ServiceMonitor": ("endpoints", {"service": "my-service", "job": "my-service"}),
    "PodMonitor": ("podMetricsEndpoints", {"job": "shop/my-service"}),
}
# A cluster's own step for all targets, which the operator puts between its labels and those of the monitor.
SCRAPE_CLASS = {"source_labels": ["pod"], "target_label": "endpoint", "replacement": "$1:http"}


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with serve(*UVICORN, "tests.telemetry.sample:app") as served:
        for _ in range(3):
            served.get("/items/1")
        yield served


def endpoint_of(kind: str) -> dict[str, Any]:
    """The one of the guide's monitor."""
    for found in re.findall(
        r"^```yaml\n(apiVersion: monitoring.coreos.com/v1\n.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
    ):
        monitor = yaml.safe_load(found)
        if monitor["kind"] == kind:
            [endpoint] = monitor["spec"][KINDS[kind][0]]
            return dict(endpoint)
    raise AssertionError(f"the guide has no {kind}")


def configuration(kind: str, endpoint: dict[str, Any], port: int, scrape_class: bool = False) -> str:
    """What the operator makes of an endpoint of a monitor: its relabelings come after the operator's labels."""
    snake = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    relabelings = [{snake.get(key, key): value for key, value in step.items()} for step in endpoint["relabelings"]]
    own = {"namespace": "shop", "pod": "my-service-1", "container": "web", **KINDS[kind][1]}
    job = {
        "job_name": f"{kind}/shop/my-service/0",
        "honor_labels": endpoint.get("honorLabels", False),
        "scrape_interval": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        "relabel_configs": [
            *({"target_label": name, "replacement": value} for name, value in own.items()),
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *([SCRAPE_CLASS] if scrape_class else []),
            *relabelings,
        ],
    }
    return json.dumps({"scrape_configs": [job]})


def series(prometheus: Prometheus, name: str = "http_requests_total") -> list[dict[str, str]]:
    query = urllib.parse.quote(name + '{status_code="200"}' if name == "http_requests_total" else name)
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/query?query={query}", timeout=60) as response:
        return [found["metric"] for found in json.load(response)["data"]["result"]]


def both(prometheus: Prometheus) -> list[dict[str, str]]:
    """The series of the requests, once there are those of the two endpoints."""
    return wait_until(lambda: found if len(found := series(prometheus)) >= 2 else [])


@pytest.mark.parametrize(
    ("kind", "honor_labels", "scrape_class"),
    [
        ("ServiceMonitor", False, False),
        ("ServiceMonitor", True, True),
        ("PodMonitor", False, True),
        ("PodMonitor", True, False),
    ],
)
def test_the_monitors_of_the_guide(service: Served, kind: str, honor_labels: bool, scrape_class: bool) -> None:
    endpoint = {**endpoint_of(kind), "honorLabels": honor_labels}
    with servers.prometheus(configuration(kind, endpoint, service.port, scrape_class)) as prometheus:
        found = both(prometheus)
        [info] = wait_until(lambda: series(prometheus, "app_info"))
    assert {labels["endpoint"] for labels in found} == {"/items/{item_id}", "/metrics"}
    of_the_target = {"job", "instance", "service", "namespace"}
    for labels in found:
        assert labels.keys() == {"__name__", *of_the_target, *OURS}
        assert (labels["job"], labels["service"]) == ("my-service", "my-service")
    assert info.keys() == {"__name__", "version", "python", *of_the_target}


@pytest.mark.parametrize(("honor_labels", "displaced"), [(False, "exported_endpoint"), (True, "endpoint")])
def test_why_it_is_needed(service: Served, honor_labels: bool, displaced: str) -> None:
    """Without the guide's steps the operator's label displaces the route's, or stands on what has no route."""
    endpoint = {"port": "http", "relabelings": [], "honorLabels": honor_labels}
    with servers.prometheus(configuration("ServiceMonitor", endpoint, service.port)) as prometheus:
        assert {labels[displaced] for labels in both(prometheus)} == {"/items/{item_id}", "/metrics"}
        [info] = wait_until(lambda: series(prometheus, "app_info"))
        assert info["endpoint"] == "http"
