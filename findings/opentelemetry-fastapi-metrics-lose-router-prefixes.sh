#!/usr/bin/env bash
# OpenTelemetry's FastAPI instrumentation 0.66b2 and routers in routers, which FastAPI 0.165 keeps nested.
#
# Guessed: metrics name the route as the span does, `/v1/items/{item}`. Seen: the span does; `http.target` of http.server.duration
# has lost the prefix of every router but the innermost, so that /v1 and /v2 of the same routes are one series, and a slow new
# version hides in the old one's requests. FastAPI 0.165 has metrics of its own, in seconds instead of milliseconds, which stand
# back where the instrumentation is at work, but not in a mounted FastAPI application: its requests are measured twice, under
# two names, and the second time as `/items/{item}` without the mount.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1 \
    opentelemetry-sdk==1.45.2 opentelemetry-instrumentation-fastapi==0.66b2
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
from importlib.metadata import version

import httpx
from fastapi import APIRouter, FastAPI
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
metrics.set_meter_provider(MeterProvider([reader]))
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
app, mounted, items = FastAPI(), FastAPI(), APIRouter(prefix="/items")
items.add_api_route("/{item}", lambda item: item)
for prefix in ("/v1", "/v2"):
    outer = APIRouter(prefix=prefix)
    outer.include_router(items)
    app.include_router(outer)
mounted.include_router(items)
app.mount("/mounted", mounted)
FastAPIInstrumentor.instrument_app(app)

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        for path in ("/v1/items/lamp", "/v2/items/lamp", "/mounted/items/lamp"):
            assert (await client.get(path)).status_code == 200

asyncio.run(main())
seen = {}
for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics:
    for metric in (one for one in scope.metrics if "duration" in one.name):
        for point in metric.data.data_points:
            seen[metric.name, point.attributes.get("http.target") or point.attributes.get("http.route")] = point.count
names = sorted(span.name for span in spans.get_finished_spans() if span.kind is trace.SpanKind.SERVER)
print("fastapi", version("fastapi"), "opentelemetry-instrumentation-fastapi", version("opentelemetry-instrumentation-fastapi"))
print("spans:", names, "metrics, expected one request of each route; seen:", seen)
assert "GET /v1/items/{item}" in names and "GET /v2/items/{item}" in names
old = {("http.server.duration", "/items/{item}"): 2, ("http.server.duration", "/mounted/items/{item}"): 1}
assert seen == old | {("http.server.request.duration", "/items/{item}"): 1}, "the behaviour has changed"
PYTHON
