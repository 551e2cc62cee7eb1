#!/usr/bin/env bash
# Anthropic's SDK reads a stream whose server-sent events have no `event:` line as an empty one: no event, no error.
#
# The name repeats what `type` in the data says, and server-sent events may do without it (WHATWG HTML: the event is then
# a "message"). Where a gateway sends `data:` alone, the answer is paid for and lost in silence, so a stream that ends
# without a stop reason must never count as a success.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check anthropic==2.12.0
"$folder/venv/bin/python" - << 'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic

USAGE = {"input_tokens": 9, "output_tokens": 1}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": USAGE}
EVENTS = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]


class Gateway(BaseHTTPRequestHandler):
    named = True

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for event in EVENTS:
            name = f"event: {event['type']}\n" if self.named else ""
            self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = anthropic.Anthropic(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
seen = {}
for Gateway.named in (True, False):
    stream = client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], stream=True)
    seen[Gateway.named] = [event.type for event in stream]
print("anthropic", anthropic.__version__)
print("expected without names:", seen[True])
print("seen without names:    ", seen[False])
assert len(seen[True]) == 3 and seen[False] == [], "the behaviour has changed"
PYTHON
