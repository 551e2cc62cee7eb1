#!/usr/bin/env bash
# Traceloop's OpenTelemetry instrumentation of OpenAI's SDK (0.62.4) and streams that fail half-way.
#
# Guessed: a span with the status ERROR, error.type at gen_ai.client.operation.duration, and one more exception counted, as for a
# call that fails before its first chunk. Seen: a stream that breaks off, and one in which the gateway reports an error, are OK in
# their spans like a whole one, though the SDK raises; the duration has no error.type, and no metric counts an exception. So an error
# ratio shows a provider that is overloaded in the middle of its answers as healthy, and its cut answers as fast ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0 opentelemetry-sdk==1.45.2 \
    opentelemetry-instrumentation-openai==0.62.4
"$folder/venv/bin/pip" list 2> /dev/null | grep instrumentation-openai
"$folder/venv/bin/python" - << 'PYTHON' 2> "$folder/log" || { tail -n 3 "$folder/log"; exit 1; }
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, in_memory_span_exporter

spans, reader, tracers = in_memory_span_exporter.InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
OpenAIInstrumentor().instrument(tracer_provider=tracers, meter_provider=MeterProvider([reader]))
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
PIECE, END = ({**CHUNK, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": end}]} for end in (None, "stop"))
ERROR = {"error": {"code": 503, "message": "overloaded"}}
ANSWERS = {"whole": [PIECE, END], "breaks off": [PIECE], "reports an error": [PIECE, ERROR], "fails at once": []}
class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        model = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        self.send_response(200 if ANSWERS[model] else 503)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for text in (f"data: {json.dumps(event)}\n\n" for event in ANSWERS[model]):
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.write(b"" if model == "breaks off" else b"0\r\n\r\n")
        self.close_connection = True

server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=server.serve_forever, daemon=True).start()
client, raised = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=0), []
for model in ANSWERS:
    try:
        list(client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], stream=True))
    except openai.APIError as error:
        raised.append((model, type(error).__name__))
[status, errors] = [one.status.status_code.name for one in spans.get_finished_spans()], {}
for metric in (metric for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics for metric in scope.metrics):
    if metric.name.endswith(("duration", "exceptions")):
        errors[metric.name] = {p.attributes.get("error.type"): getattr(p, "count", None) or p.value for p in metric.data.data_points}
print("openai", openai.__version__, "raised:", raised, "\nexpected: one span OK and three ERROR, three exceptions counted\nseen:", status, errors)
assert len(raised) == 3 and status == ["OK"] * 3 + ["ERROR"], "the behaviour has changed"
assert list(errors["llm.openai.chat_completions.exceptions"].values()) == [1], "the behaviour has changed"
PYTHON
