"""Scraped as the Prometheus Operator does it: its target label `endpoint` must not displace the route's."""

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ops.paths import PROJECT
from tests import servers
from tests.servers import Prometheus, wait_until
from tests.telemetry.serving import UVICORN, Served, serve

GUIDE = (PROJECT / "docs" / "adopt.md").read_text()
OURS = {"method", "endpoint", "status_code"}


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with serve(*UVICORN, "tests.telemetry.sample:app") as served:
        for _ in range(3):
            served.get("/items/1")
        yield served


def service_monitor() -> dict[str, Any]:
    """The one of the guide."""
    found = re.search(r"^```yaml\n(apiVersion: monitoring.coreos.com/v1\n.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    loaded: dict[str, Any] = yaml.safe_load(found[1])
    return loaded


def configuration(endpoint: dict[str, Any], port: int) -> str:
    """What the operator makes of an endpoint of a ServiceMonitor: its relabelings come after its own labels."""
    snake = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    relabelings = [{snake.get(key, key): value for key, value in step.items()} for step in endpoint["relabelings"]]
    own = {"namespace": "shop", "service": "my-service", "pod": "my-service-1", "container": "web", "job": "my-service"}
    job = {
        "job_name": "serviceMonitor/shop/my-service/0",
        "honor_labels": endpoint.get("honorLabels", False),
        "scrape_interval": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        "relabel_configs": [
            *({"target_label": name, "replacement": value} for name, value in own.items()),
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *relabelings,
        ],
    }
    return json.dumps({"scrape_configs": [job]})


def series(prometheus: Prometheus) -> list[dict[str, str]]:
    url = f"{prometheus.url}/api/v1/query?query=http_requests_total%7Bstatus_code%3D%22200%22%7D"
    with urllib.request.urlopen(url, timeout=60) as response:
        return [found["metric"] for found in json.load(response)["data"]["result"]]


def test_the_service_monitor_of_the_guide(service: Served) -> None:
    [endpoint] = service_monitor()["spec"]["endpoints"]
    with servers.prometheus(configuration(endpoint, service.port)) as prometheus:
        wait_until(lambda: len(series(prometheus)) >= 2)
        found = series(prometheus)
    assert {labels["endpoint"] for labels in found} == {"/items/{item_id}", "/metrics"}
    for labels in found:
        assert labels.keys() == {"__name__", "job", "instance", "service", "namespace", *OURS}


def test_why_it_is_needed(service: Served) -> None:
    """Without the guide's steps the operator's label displaces the route's."""
    [endpoint] = service_monitor()["spec"]["endpoints"]
    with servers.prometheus(configuration({**endpoint, "relabelings": []}, service.port)) as prometheus:
        wait_until(lambda: len(series(prometheus)) >= 2)
        assert {labels["exported_endpoint"] for labels in series(prometheus)} == {"/items/{item_id}", "/metrics"}
