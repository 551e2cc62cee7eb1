#!/usr/bin/env bash
# vllm-router 0.1.17 in front of a server that answers one prompt with 429 and `Retry-After`, another with 500, and works.
#
# Guessed: a refusal reaches the client after one attempt, or after the seconds that it names; one bad prompt harms its own caller.
# Seen: either is tried five times within a second, Retry-After unread. Ten failed attempts open the server's circuit breaker, so
# two requests do it, or a single call of OpenAI's SDK, which retries twice by itself. From then on all other clients get 503 with
# a text that is no JSON, for as long as the breaker waits, while vllm_router_worker_health says 1. The refused ones are not in
# vllm_router_requests_total; only vllm_router_cb_state and vllm_router_request_errors_total have them.
set -euo pipefail
folder=$(mktemp -d) pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check vllm-router==0.1.17
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
worker=$(free) router=$(free) metrics=$(free)
cat > worker.py << 'PYTHON'
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Worker(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][0]["content"]
        if self.path == "/v1/chat/completions":  # the router asks for more than that
            print(prompt, flush=True)
        self.answer(int(prompt), {"id": "1", "choices": []})

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Worker).serve_forever()
PYTHON
python3 worker.py "$worker" > asked 2> /dev/null & pids+=($!)
venv/bin/vllm-router --worker-urls "http://127.0.0.1:$worker" --host 127.0.0.1 --port "$router" \
    --prometheus-host 127.0.0.1 --prometheus-port "$metrics" > log 2>&1 & pids+=($!)
for _ in $(seq 60); do curl -sf -o /dev/null "127.0.0.1:$router/health" && break; sleep 0.5; done
ask() { curl -s -o body -w '%{http_code}' -H 'content-type: application/json' "127.0.0.1:$router/v1/chat/completions" \
    -d "{\"model\": \"m\", \"messages\": [{\"role\": \"user\", \"content\": \"$1\"}]}"; }
before=$(ask 200)
busy=$(ask 429) failed="$(ask 500) $(ask 500)"
after="$(ask 200) $(cat body)"
tries() { grep -c "$1" asked; }
health=$(curl -s "127.0.0.1:$metrics/metrics" | sed -n 's/^vllm_router_worker_health{.*} //p')
echo "one request that is answered $busy: $(tries 429) attempts"
echo "two that are answered $failed: $(tries 500) attempts"
echo "one that works: $before before them; after them expected the same, seen: $after; worker_health $health"
[ "$before $(tries 429) $(tries 500) $(tries 200) $health" = "200 5 10 1 1" ] && [[ "$after" == "503 No available workers"* ]]
