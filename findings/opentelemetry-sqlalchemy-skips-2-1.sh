#!/usr/bin/env bash
# OpenTelemetry's instrumentation 0.66b1 of SQLAlchemy, and SQLAlchemy 2.1.
#
# Guessed: it works, as pip installs both without a word and `pip check` finds no conflict; where a version did not suit, instrument()
# would raise. Seen: with 2.0 a query has its span and the pool its gauge (db.client.connections.usage). With 2.1 instrument() returns
# as ever and does nothing: its bound "< 2.1.0" stands in an extra that nobody installs, and is looked up at run time, for one line in
# the log. So an update of SQLAlchemy ends all spans of the database and the pool's gauge, and an alert on the gauge stays silent, as
# there is no series. instrument(skip_dep_check=True) brings both back, and works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-instrumentation-sqlalchemy==0.66b1 \
    opentelemetry-sdk==1.45.1 sqlalchemy==2.0.58
cat > "$folder/ask.py" << 'PYTHON'
import logging
import sys

import sqlalchemy
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

logging.disable()
reader, spans, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
skip = {"skip_dep_check": True} if sys.argv[1:] else {}
SQLAlchemyInstrumentor().instrument(tracer_provider=tracers, meter_provider=MeterProvider([reader]), **skip)
with sqlalchemy.create_engine("sqlite://").connect() as connection:
    connection.execute(sqlalchemy.text("SELECT 1"))
print(len(spans.get_finished_spans()), "spans,", "a gauge" if reader.get_metrics_data() else "no gauge")
PYTHON
before=$("$folder/venv/bin/python" "$folder/ask.py")
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sqlalchemy==2.1.9
"$folder/venv/bin/pip" check --disable-pip-version-check
after=$("$folder/venv/bin/python" "$folder/ask.py")
unchecked=$("$folder/venv/bin/python" "$folder/ask.py" skip)
echo "SQLAlchemy 2.0.58: $before"
echo "SQLAlchemy 2.1.9:  expected the same, seen $after; with skip_dep_check=True $unchecked"
[ "$before" = "2 spans, a gauge" ] && [ "$after" = "0 spans, no gauge" ] && [ "$unchecked" = "2 spans, a gauge" ]
