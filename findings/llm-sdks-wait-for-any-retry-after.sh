#!/usr/bin/env bash
# How long the SDKs of OpenAI and Anthropic sleep when a provider or gateway answers 429 with Retry-After.
#
# Guessed: alike, as both are generated from one template, and bounded by the client's `timeout`. Seen: up to 120 s both sleep
# as asked, before each of their two retries and outside every timeout. From 121 s on openai raises at once; anthropic knows no
# bound and sleeps. A call with timeout=5 thus takes four minutes with either, and as long as the gateway likes with one.
# `retry-after-ms` goes before Retry-After in both. The sleeps are recorded here instead of slept.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0 anthropic==2.12.0
"$folder/venv/bin/python" - << 'PYTHON'
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import openai

headers = {}
slept = []
time.sleep = slept.append


class Busy(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(429)
        for name, value in {**headers, "content-length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
threading.Thread(target=server.serve_forever, daemon=True).start()
place = {"api_key": "none", "base_url": f"http://127.0.0.1:{server.server_port}", "timeout": 5}
ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
calls = {
    "openai": lambda: openai.OpenAI(**place).chat.completions.create(**ask),
    "anthropic": lambda: anthropic.Anthropic(**place).messages.create(**ask, max_tokens=9),
}
print("openai", openai.__version__, "anthropic", anthropic.__version__)
seen = {}
for sdk, call in calls.items():
    for sent in ({"retry-after": "120"}, {"retry-after": "121"}, {"retry-after": "120", "retry-after-ms": "1500"}):
        headers, slept[:] = sent, []
        try:
            call()
        except (openai.RateLimitError, anthropic.RateLimitError):
            seen[sdk, *sent.values()] = [round(one, 1) for one in slept]
            print(f"{sdk:<10}{sent} slept {slept}")
assert seen["openai", "120"] == seen["anthropic", "120"] == [120, 120], "the behaviour has changed"
assert seen["openai", "121"] == [] and seen["anthropic", "121"] == [121, 121], "the behaviour has changed"
assert seen["openai", "120", "1500"] == seen["anthropic", "120", "1500"] == [1.5, 1.5], "the behaviour has changed"
PYTHON
