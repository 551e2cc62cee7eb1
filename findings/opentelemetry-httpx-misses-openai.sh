#!/usr/bin/env bash
# OpenTelemetry's httpx instrumentation beside the SDKs of OpenAI and Anthropic, which have moved from httpx to httpx2.
#
# Guessed: calls of both appear as client spans, as they did for years, and carry `traceparent` to the gateway. Seen: no span and
# no header for openai, so a trace ends at the service and a gateway's own spans begin another one. Nothing warns. anthropic makes
# a span of its own and sends the header. openai takes a client of the old httpx, which brings both back; anthropic refuses it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0 anthropic==2.12.0 httpx==0.28.1 \
    opentelemetry-sdk==1.45.2 opentelemetry-instrumentation-httpx==0.66b2
"$folder/venv/bin/python" - << 'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import httpx
import openai
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, headers = InMemorySpanExporter(), []
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
HTTPXClientInstrumentor().instrument()


class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        headers.append("traceparent" in self.headers)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"id": "1", "choices": [], "content": []}')

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=server.serve_forever, daemon=True).start()
place = {"api_key": "none", "base_url": f"http://127.0.0.1:{server.server_port}"}
ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
openai.OpenAI(**place).chat.completions.create(**ask)
openai.OpenAI(**place, http_client=httpx.Client()).chat.completions.create(**ask)
anthropic.Anthropic(**place).messages.create(**ask, max_tokens=9)
names = [span.instrumentation_scope.name for span in spans.get_finished_spans()]
print("openai", openai.__version__, "anthropic", anthropic.__version__)
print("traceparent at the gateway: openai, openai with httpx's client, anthropic:", headers)
print("spans of:", names)
assert headers == [False, True, True], "the behaviour has changed"
assert names == ["opentelemetry.instrumentation.httpx", "com.anthropic.sdk.python"], "the behaviour has changed"
PYTHON
