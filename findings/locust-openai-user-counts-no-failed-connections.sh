#!/usr/bin/env bash
# Locust 2.47's OpenAIUser (locust.contrib.oai) and what its statistics have of a load test against a language model.
#
# Guessed: a line for each call, and a failure for each that fails. Seen: it listens at the HTTP client's hook for responses. A
# connection that is refused or breaks, and an answer that does not come in time, have no response: no request and no failure,
# so that a dead server and a hanging one leave a clean report. A stream is read to its end as if it were one JSON document,
# which fails in the hook: no line either, and the caller gets JSONDecodeError. A call that is answered 503 has three lines,
# as OpenAI's SDK retries it twice. The token count of chat completions is 0: it looks for the name of the other API.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check locust==2.47.0 openai==3.57.0 httpx==0.28.1
OPENAI_API_KEY=none "$folder/venv/bin/python" - << 'PYTHON'
from locust.contrib.oai import OpenAIUser  # first, as it patches what the others import

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import locust
from locust.env import Environment

CHUNK = 'data: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}\n\ndata: [DONE]\n\n'
WHOLE = '{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": {"completion_tokens": 7}}'


class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        ask = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(ask["model"] == "slow")
        self.send_response(503 if ask["model"] == "busy" else 200)
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write((CHUNK if ask.get("stream") else WHOLE).encode())

    log_message = ThreadingHTTPServer.handle_error = lambda *_: None


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen, raised = {}, {}
for case in ("whole", "busy", "refused", "slow", "stream"):
    environment = Environment(user_classes=[])
    environment.create_local_runner()
    client = OpenAIUser(environment).client
    client.base_url = f"http://127.0.0.1:{1 if case == 'refused' else server.server_port}"
    try:
        list(client.chat.completions.create(model=case, messages=[], timeout=0.2, stream=case == "stream"))
        raised[case] = ""
    except Exception as error:
        raised[case] = type(error).__name__
    total = environment.stats.total
    seen[case] = total.num_requests, total.num_failures, total.total_content_length
    print(f"{case:<8} requests, failures, tokens: {seen[case]} {raised[case]}")
print("locust", locust.__version__)
assert raised["stream"] == "JSONDecodeError", "it has changed"
assert seen == {"whole": (1, 0, 0), "busy": (3, 3, 0), **dict.fromkeys(("refused", "slow", "stream"), (0, 0, 0))}, "it has changed"
PYTHON
