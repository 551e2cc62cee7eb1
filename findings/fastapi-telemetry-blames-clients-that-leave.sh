#!/usr/bin/env bash
# FastAPI 0.165's own OpenTelemetry metrics (http.server.request.duration) and clients that leave before their answer is whole.
#
# Guessed: both clients here are treated alike, and neither is an error of the service. Seen: whoever leaves a stream, closes the
# tab of a chat say, is status 200 with error.type "ConnectionError": by OpenTelemetry's conventions a failed request, whose span
# has the status ERROR, so that an error ratio over error.type and an alert on it count impatient users. Whoever leaves while the
# endpoint still computes, and gets nothing at all, is a 200 without error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 uvicorn==0.54.0 \
    opentelemetry-sdk==1.45.2
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio, socket, threading, time

import fastapi, uvicorn
from fastapi.responses import StreamingResponse
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
app = fastapi.FastAPI()
@app.get("/chat")
async def chat():
    async def body():
        for _ in range(300):
            yield b"word "
            await asyncio.sleep(0.1)
    return StreamingResponse(body())

@app.get("/report")
async def report():
    await asyncio.sleep(1.5)

def leave(path):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        client.recv(1000) if path == "/chat" else time.sleep(0.5)

def counted():
    points = []
    for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics:
        for metric in (one for one in scope.metrics if one.name == "http.server.request.duration"):
            points += [point.attributes for point in metric.data.data_points]
    return {one["http.route"]: (one["http.response.status_code"], one.get("error.type")) for one in points}

server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.1)
port = server.servers[0].sockets[0].getsockname()[1]
leave("/report")
leave("/chat")
time.sleep(5)
print("fastapi", fastapi.__version__, "status and error.type, expected no error; seen:", counted())
assert counted() == {"/chat": (200, "ConnectionError"), "/report": (200, None)}, "the behaviour has changed"
PYTHON
