#!/usr/bin/env bash
# Instructor 1.17 and an answer that fits its model only at the third attempt: the `usage` of the completion that it returns.
#
# Guessed: a completion is what the provider sent for the last attempt, its usage too. Seen: usage is the sum over all attempts,
# written into the last completion, whose id, text and finish reason are those of one. Whoever counts tokens at Instructor and
# also at the client below it, by an instrumentation of OpenAI's SDK, counts the failed attempts twice; tokens per second, and
# tokens of a call against the context window, come out too high. max_retries=3 is four requests, each of which OpenAI's SDK
# may send three times by itself. (With it comes openai 2: Instructor does not know the third yet.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check instructor==1.17.0
"$folder/venv/bin/python" - << 'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import instructor
import openai
import pydantic

sent = []
USAGE = {"prompt_tokens": 50, "completion_tokens": 4, "total_tokens": 54, "prompt_tokens_details": {"cached_tokens": 40}}
fits_from = 3

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        sent.append("{}" if len(sent) + 1 < fits_from else '{"name": "lamp"}')
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": sent[-1]}}
        answer = {"id": f"answer {len(sent)}", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({**answer, "choices": [choice]}).encode())

    def log_message(self, *_):
        pass

class Item(pydantic.BaseModel):
    name: str

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
extract = instructor.from_openai(client, mode=instructor.Mode.JSON).chat.completions.create_with_completion
ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "response_model": Item, "max_retries": 3}
item, completion = extract(**ask)
usage = completion.usage
seen = completion.id, usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens
fits_from, sent[:] = 100, []
try:
    extract(**ask)
except Exception as error:
    print(f"{type(error).__name__} after {len(sent)} requests with max_retries=3")
print("instructor", version("instructor"), "expected: answer 3, 50 and 4 tokens, 40 cached; seen:", *seen)
assert seen == ("answer 3", 150, 12, 120) and len(sent) == 4, "the behaviour has changed"
PYTHON
