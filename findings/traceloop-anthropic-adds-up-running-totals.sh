#!/usr/bin/env bash
# Traceloop's OpenTelemetry instrumentation of Anthropic's SDK (0.62.4) and streams.
# Guessed: output tokens are those of the last event, as the API reports running totals; a stream that breaks off has a span with the
# status ERROR and a duration. Seen: all totals are added up, to 105 for an answer of 55 tokens that was reported after 50 and 55.
# A stream that breaks off, or that the caller leaves, has neither span nor duration, so the input tokens that it has reported are
# lost. And a whole call has two spans with its tokens, as the SDK now makes its own: sums of costs over spans double.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check anthropic==2.12.0 opentelemetry-sdk==1.45.2 \
    opentelemetry-instrumentation-anthropic==0.62.4
"$folder/venv/bin/python" - << 'PYTHON'
import contextlib, json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic, httpx2
from opentelemetry import trace
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.sdk.metrics import MeterProvider, export
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, in_memory_span_exporter

spans, reader, tracers, seen = in_memory_span_exporter.InMemorySpanExporter(), export.InMemoryMetricReader(), TracerProvider(), {}
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
AnthropicInstrumentor().instrument(meter_provider=MeterProvider([reader]))
START = {"id": "1", "role": "assistant", "content": [], "model": "m", "usage": {"input_tokens": 9, "output_tokens": 0}}
TOTALS = [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": total}} for total in (50, 55)]
EVENTS = [{"type": "message_start", "message": START}, *TOTALS, {"type": "message_stop"}]
class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_message = ThreadingHTTPServer.handle_error = lambda *_: None
    def do_POST(self):
        breaks = b"breaks off" in self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in EVENTS[: 2 if breaks else None]:
            text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.write(b"" if breaks else b"0\r\n\r\n")
        self.close_connection = True
server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = anthropic.Anthropic(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
for model in ("whole", "breaks off", "left"):
    stream = client.messages.create(model=model, max_tokens=99, messages=[], stream=True)
    with contextlib.suppress(httpx2.RemoteProtocolError), stream:
        next(stream) if model == "left" else list(stream)
    seen[model] = [one.instrumentation_scope.name.split(".")[1] for one in spans.get_finished_spans()]
    spans.clear()
for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
    for point in metric.data.data_points:
        if point.attributes.get("gen_ai.token.type", "output") == "output" and hasattr(point, "sum"):
            seen[metric.name] = point.sum if "token" in metric.name else point.count
print("anthropic", anthropic.__version__, "and its instrumentation 0.62.4, expected: one span of each, 55 output tokens, 3 durations\nseen:", seen)
assert seen["gen_ai.client.token.usage"] == 105 and seen["gen_ai.client.operation.duration"] == 1, "the behaviour has changed"
assert [seen[model].count("instrumentation") for model in ("whole", "breaks off", "left")] == [1, 0, 0], "the behaviour has changed"
PYTHON
