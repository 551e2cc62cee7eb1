#!/usr/bin/env bash
# Locust with --processes and a load shape does not wait at the end: --stop-timeout says for how long requests in flight
# may finish, and one process alone does wait. The master gives its workers half a second, then ends them; what they were
# waiting for is in no statistics, neither as a success nor as a failure.
set -euo pipefail
folder=$(mktemp -d)
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "locust==2.47.0"
venv/bin/locust --version
cat > server.py << 'PY'
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(4)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        print("answered", flush=True)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
cat > locustfile.py << 'PY'
from locust import HttpUser, LoadTestShape, constant, events, task
from locust.runners import WorkerRunner
class User(HttpUser):
    wait_time = constant(60)  # one request each
    @task
    def ask(self): self.client.get("/")
class Shape(LoadTestShape):
    def tick(self): return (4, 4) if self.get_run_time() < 3 else None
@events.quitting.add_listener
def _(environment, **_):
    if not isinstance(environment.runner, WorkerRunner):
        print(environment.stats.total.num_requests, file=open("counted", "w"))
PY
python3 server.py > answered &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
until [ -s port ]; do sleep 0.1; done
run() {  # what Locust counts
    venv/bin/locust --headless --host "http://127.0.0.1:$(cat port)" --stop-timeout 20 --only-summary "$@" &> log
    cat counted
}
echo "one process:   4 requests expected, $(run) counted"
counted=$(run --processes 2)
echo "two workers:   4 requests expected, $counted counted"
if grep -q "went missing" log; then
    echo "the machine is too busy: Locust has lost its workers" >&2
    exit 1
fi
[ "$counted" -lt 4 ]
