#!/usr/bin/env bash
# A stream that breaks off, or stalls past the client's timeout, in the SDKs of OpenAI and Anthropic.
#
# Guessed: both raise their own APIConnectionError and APITimeoutError, as they do while a call begins; one template generates
# both. Seen: openai does; anthropic lets its HTTP client's exceptions through, RemoteProtocolError and ReadTimeout of httpx2,
# which are no anthropic.AnthropicError and, unlike before the move, no httpx.HTTPError either. `except anthropic.APIError` sees
# the errors before the first event and none of those after it, where long answers fail most.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0 anthropic==2.12.0 httpx==0.28.1
"$folder/venv/bin/python" - << 'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import httpx
import openai

CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
START = json.dumps({"type": "message_start", "message": {"id": "1", "content": [], "usage": {"input_tokens": 9}}})
stalls = False

class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        event = f"event: message_start\ndata: {START}\n\n" if "messages" in self.path else f"data: {json.dumps(CHUNK)}\n\n"
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(event):x}\r\n{event}\r\n".encode())
        threading.Event().wait(3 if stalls else 0)
        self.close_connection = True  # and no last chunk

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
place = {"api_key": "none", "base_url": f"http://127.0.0.1:{server.server_port}", "timeout": 1}
ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
calls = {openai: openai.OpenAI(**place).chat.completions.create, anthropic: anthropic.Anthropic(**place).messages.create}
seen = {}
for sdk, create in calls.items():
    for stalls in (False, True):
        try:
            list(create(**ask, max_tokens=9))
        except Exception as error:
            known = isinstance(error, sdk.APIError), isinstance(error, httpx.HTTPError)
            seen[sdk.__name__, stalls] = type(error).__module__, type(error).__name__, *known
            print(sdk.__name__, sdk.__version__, "stalls:" if stalls else "breaks off:", *seen[sdk.__name__, stalls][:2])
print("expected: the same two of either")
assert seen["openai", False][1] == "APIConnectionError" and seen["openai", True][1] == "APITimeoutError"
assert seen["anthropic", False] == ("httpx2", "RemoteProtocolError", False, False), "the behaviour has changed"
assert seen["anthropic", True] == ("httpx2", "ReadTimeout", False, False), "the behaviour has changed"
PYTHON
