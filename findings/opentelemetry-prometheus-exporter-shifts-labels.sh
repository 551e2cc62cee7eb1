#!/usr/bin/env bash
# OpenTelemetry's Prometheus exporter 0.66b2 and two libraries that record a metric of the same name with different attributes.
#
# Guessed: series beside each other in one family, told apart by otel_scope_name, an attribute that one of them lacks empty. Seen:
# the second one's values stand under the first one's label names, by position: here the kind of error where the model belongs,
# the model where the scope's name belongs, and the provider is gone. So it goes in a service with two instrumented LLM SDKs
# (gen_ai.client.token.usage), or two HTTP clients: sums by model or provider are wrong without any error in the log, and
# which library is written wrongly depends on which recorded first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2 \
    opentelemetry-exporter-prometheus==0.66b2 prometheus-client==0.26.0
"$folder/venv/bin/python" - << 'PYTHON'
from importlib.metadata import version

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

provider = MeterProvider([PrometheusMetricReader()])
calls = {
    "first": {"model": "small", "provider": "one"},
    "second": {"model": "large", "provider": "two", "error.type": "timeout"},
}
for scope, attributes in calls.items():
    provider.get_meter(scope).create_counter("calls").add(1, attributes)
seen = [sample.labels for family in REGISTRY.collect() for sample in family.samples if sample.name == "calls_total"]
print("opentelemetry-exporter-prometheus", version("opentelemetry-exporter-prometheus"))
for (scope, attributes), labels in zip(calls.items(), seen, strict=True):
    print("expected:", attributes | {"otel_scope_name": scope})
    print("seen:    ", {name: value for name, value in labels.items() if value})
assert seen[1]["model"] == "timeout" and seen[1]["otel_scope_name"] == "large", "the behaviour has changed"
PYTHON
