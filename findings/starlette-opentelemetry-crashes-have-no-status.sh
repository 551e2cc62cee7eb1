#!/usr/bin/env bash
# Starlette 1.10's own OpenTelemetryMiddleware (experimental) and a service that fails.
#
# Guessed: it takes a tracer provider and a meter provider, so it makes spans and http.server.request.duration, and an endpoint that
# raises is a 500 in both, as it is for the client and for OpenTelemetry's own instrumentation. Seen: no metric, ever: the meter
# provider is kept and not used. And the span of a crash has no http.response.status_code, as the 500 is sent further out: it has
# error.type "KeyError" instead. An error ratio over status codes, of the spans or of metrics that a collector makes from them, has
# the 503s that a service answers in order, and none of its crashes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check starlette==1.10.0 opentelemetry-sdk==1.45.2 httpx2==2.16.2
"$folder/venv/bin/python" - << 'PYTHON'
import starlette
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

reader, spans, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))


async def refuses(request):
    return PlainTextResponse("too much to do", 503)


async def crashes(request):
    raise KeyError("forgotten")


telemetry = Middleware(OpenTelemetryMiddleware, tracer_provider=tracers, meter_provider=MeterProvider([reader]))
app = Starlette(routes=[Route("/refuses", refuses), Route("/crashes", crashes)], middleware=[telemetry])
client = TestClient(app, raise_server_exceptions=False)
answered = {path: client.get(path).status_code for path in ("/refuses", "/crashes")}
seen = {
    span.attributes["http.route"]: tuple(span.attributes.get(name) for name in ("http.response.status_code", "error.type"))
    for span in spans.get_finished_spans()
}
print("starlette", starlette.__version__)
print("expected: status codes as answered:", answered, "and a duration for each")
print("seen:     status code and error.type:", seen, "metrics:", reader.get_metrics_data())
assert answered == {"/refuses": 503, "/crashes": 500}
assert seen == {"/refuses": (503, "503"), "/crashes": (None, "KeyError")}, "the behaviour has changed"
assert reader.get_metrics_data() is None, "the behaviour has changed"
PYTHON
