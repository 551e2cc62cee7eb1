#!/usr/bin/env bash
# FastAPI 0.165's `app.frontend("/", directory="dist")` in the metrics of prometheus-fastapi-instrumentator 8.1, starlette_exporter
# 0.24 and FastAPI's own.
#
# Guessed: its pages and files are a handler of their own, as those of a mounted StaticFiles are, apart from paths that do not exist.
# Seen: it is served where no route matched. The instrumentator has it as "none", in one series with the 404s of scanners and of
# clients that mistype the API; starlette_exporter leaves such requests out by default, so that the page that every user loads first
# has no rate, no duration and no error; FastAPI itself has it, and every unknown path of the API, as "/{path}". And a browser
# that opens an unknown path, of the API too, gets the page with status 200: no count of 404s shows a dead link.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 httpx2==2.16.2 \
    prometheus-fastapi-instrumentator==8.1.0 starlette_exporter==0.24.0 opentelemetry-sdk==1.45.2
mkdir "$folder/dist"
echo page > "$folder/dist/index.html"
"$folder/venv/bin/python" - "$folder/dist" << 'PYTHON'
import sys

import fastapi
import prometheus_client
import starlette_exporter
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_fastapi_instrumentator import Instrumentator

metrics.set_meter_provider(MeterProvider([reader := InMemoryMetricReader()]))
samples = lambda registry, name: [one for each in registry.collect() for one in each.samples if one.name == name]


def seen(way):
    registry, app = prometheus_client.CollectorRegistry(), fastapi.FastAPI()
    app.get("/api/items")(lambda: [])
    app.frontend("/", directory=sys.argv[1]) if way == "frontend" else app.mount("/app", StaticFiles(directory=sys.argv[1]))
    Instrumentator(should_group_status_codes=False, registry=registry).instrument(app)
    app.add_middleware(starlette_exporter.PrometheusMiddleware, prefix=way)
    client, page = TestClient(app), "/index.html" if way == "frontend" else "/app/index.html"
    assert [client.get(path).status_code for path in ("/api/items", page, "/api/typo")] == [200, 200, 404]
    opened = client.get("/api/typo", headers={"accept": "text/html", "sec-fetch-mode": "navigate"})
    labels = [one.labels for one in samples(registry, "http_requests_total")]
    others = [one.labels for one in samples(prometheus_client.REGISTRY, f"{way}_requests_total")]
    found = sorted((one["handler"], one["status"]) for one in labels), sorted(one["path"] for one in others), opened.status_code
    print(f"{way}: instrumentator {found[0]}, starlette_exporter {found[1]}, /api/typo in a browser {found[2]}")
    return found

assert seen("mount") == ([("/api/items", "200"), ("/app", "200"), ("none", "404")], ["/api/items", "/app"], 404)
own = seen("frontend")
data = reader.get_metrics_data().resource_metrics[0].scope_metrics
points = [point for scope in data for metric in scope.metrics if metric.name.endswith("duration") for point in metric.data.data_points]
routes = {(point.attributes.get("http.route"), point.attributes["http.response.status_code"]) for point in points}
print("FastAPI's own, of both:", routes)
assert own == ([("/api/items", "200"), ("none", "200"), ("none", "404")], ["/api/items"], 200), "the behaviour has changed"
assert {("/{path}", 200), ("/{path}", 404)} < routes, "the behaviour has changed"
PYTHON
