#!/usr/bin/env bash
# langchain-openai 1.7: token counts of streams, with OpenAI and with a gateway or server that speaks its protocol.
#
# Guessed: a ChatOpenAI asks for usage in streams (stream_options.include_usage), as it does for OpenAI, and whoever moves to a
# gateway changes base_url. Seen: with a base_url, also out of OPENAI_BASE_URL, it no longer asks. The answers are the same,
# usage_metadata is None and no warning says so: dashboards and budgets lose all streamed tokens on the day of the move. Whole
# answers still have them, so a test without streaming notices nothing. stream_usage=True brings them back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check langchain-openai==1.7.4 openai==3.54.0
"$folder/venv/bin/python" - << 'PYTHON'
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from langchain_openai import ChatOpenAI

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
ANSWER = {"id": "1", "created": 1, "model": "m", "object": "chat.completion"}

class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        choice = {"index": 0, "finish_reason": "stop"}
        said = {"role": "assistant", "content": "Hello"}
        body = json.dumps({**ANSWER, "choices": [{**choice, "message": said}], "usage": USAGE})
        if asked.get("stream"):
            chunks = [{"choices": [{**choice, "delta": said}]}]
            if (asked.get("stream_options") or {}).get("include_usage"):
                chunks.append({"choices": [], "usage": USAGE})
            body = "".join(f"data: {json.dumps({**ANSWER, 'object': 'chat.completion.chunk', **one})}\n\n" for one in chunks)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

def tokens(model):
    return sum(chunk.usage_metadata["total_tokens"] for chunk in model.stream("Hi") if chunk.usage_metadata)

server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["OPENAI_API_KEY"] = "none"
place = f"http://127.0.0.1:{server.server_port}"
at_openai = ChatOpenAI(model="m").stream_usage
moved, asked = ChatOpenAI(model="m", base_url=place), ChatOpenAI(model="m", base_url=place, stream_usage=True)
seen = [moved.invoke("Hi").usage_metadata["total_tokens"], tokens(moved), tokens(asked)]
os.environ["OPENAI_BASE_URL"] = place
seen.append(tokens(ChatOpenAI(model="m")))
print("langchain-openai", version("langchain-openai"), "asks OpenAI for usage:", at_openai)
print("gateway, tokens of: a whole answer, a stream, one with stream_usage=True, one by OPENAI_BASE_URL")
print("expected: 7 each; seen:", seen)
assert at_openai and seen == [7, 0, 7, 0], "the behaviour has changed"
PYTHON
