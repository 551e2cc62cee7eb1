#!/usr/bin/env bash
# OpenAI's SDK raises for `{"error": {...}}` in a stream, and not for the same body as a whole answer with HTTP status 200:
# it returns a ChatCompletion whose `choices` are None.
#
# OpenRouter documents such answers (an error after the model has begun), and other gateways send them. Code and telemetry
# that wait for an exception see a success without usage.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0
"$folder/venv/bin/python" - << 'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

ERROR = {"error": {"code": 502, "message": "Provider returned error"}}


class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        stream = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
        body = f"data: {json.dumps(ERROR)}\n\n" if stream else json.dumps(ERROR)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=0)
ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
try:
    list(client.chat.completions.create(**ask, stream=True))
    streamed = "no exception"
except openai.APIError as error:
    streamed = type(error).__name__
whole = client.chat.completions.create(**ask)
print("openai", openai.__version__)
print("streamed:", streamed)
print("whole, expected the same; seen:", type(whole).__name__, "choices =", whole.choices, "error =", whole.error)
assert streamed == "APIError" and whole.choices is None, "the behaviour has changed"
PYTHON
