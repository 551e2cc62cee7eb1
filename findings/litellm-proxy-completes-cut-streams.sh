#!/usr/bin/env bash
# LiteLLM's proxy 1.108 in front of an OpenAI-compatible provider whose stream breaks off, or that reports no usage.
#
# Guessed: a stream that ends without finish_reason and [DONE] reaches the client as it is, or as an error. Seen: the proxy adds
# `finish_reason: "stop"` and [DONE]; nothing distinguishes a cut answer from a whole one. Where the provider sends no usage, a
# stream gets token counts of the proxy's own tokenizer, and a whole answer gets `0, 0, 0`: reported, not absent.
# A provider's `retry-after: 7` arrives as `llm_provider-retry-after`, which no SDK reads: they retry after half a second.
set -euo pipefail
folder=$(mktemp -d) pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.108.7'
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
provider=$(free) proxy=$(free)
cat > provider.py << 'PYTHON'
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        busy = asked["messages"][0]["content"] == "busy"
        self.send_response(429 if busy else 200)
        self.send_header("retry-after", "7")
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        answer = {"id": "1", "created": 1, "model": "m", "object": "chat.completion"}
        choice = {"index": 0, "finish_reason": None}
        said = {"role": "assistant", "content": "The answer begins"}
        if asked.get("stream"):  # and breaks off
            piece = {**answer, "object": "chat.completion.chunk", "choices": [{**choice, "delta": said}]}
            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
        else:
            self.wfile.write(json.dumps({**answer, "choices": [{**choice, "message": said, "finish_reason": "stop"}]}).encode())

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Provider).serve_forever()
PYTHON
echo "model_list: [{model_name: m, litellm_params: {model: openai/m, api_key: none, api_base: 'http://127.0.0.1:$provider/v1'}}]" > config.yaml
LITELLM_MASTER_KEY=sk-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
export LITELLM_MASTER_KEY LITELLM_LOCAL_MODEL_COST_MAP=True
python3 provider.py "$provider" 2> /dev/null & pids+=($!)
venv/bin/litellm --config config.yaml --telemetry False --host 127.0.0.1 --port "$proxy" > log 2>&1 & pids+=($!)
for _ in $(seq 180); do curl -s -o /dev/null "127.0.0.1:$proxy/health/liveliness" && break; sleep 1; done
ask() { curl -sS -i -H @<(echo "authorization: Bearer $LITELLM_MASTER_KEY") -H 'content-type: application/json' \
    "127.0.0.1:$proxy/v1/chat/completions" -d "{\"model\": \"m\", \"messages\": [{\"role\": \"user\", \"content\": \"$1\"}] $2}"; }
cut=$(ask hello ', "stream": true, "stream_options": {"include_usage": true}')
whole=$(ask hello '')
busy=$(ask busy '')
echo "litellm 1.108.7, a stream that breaks off after one chunk:"; grep '^data' <<< "$cut" | cut -c1-220
echo "a whole answer without usage: $(grep -o '"usage":{[^}]*}' <<< "$whole")"
echo "a 429 with retry-after:"; grep -i 'retry-after' <<< "$busy"
grep -q '"finish_reason":"stop"' <<< "$cut" && grep -q '\[DONE\]' <<< "$cut" && grep -Eq '"completion_tokens":[1-9]' <<< "$cut"
grep -q '"total_tokens":0' <<< "$whole"
grep -qi '^llm_provider-retry-after: 7' <<< "$busy" && ! grep -qi '^retry-after' <<< "$busy"
