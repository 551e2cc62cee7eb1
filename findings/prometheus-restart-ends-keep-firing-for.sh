#!/usr/bin/env bash
# Prometheus and an alert's `keep_firing_for` over a restart (seen alike in 2.42, Debian's 2.53 and 3.13).
#
# Guessed: what ALERTS_FOR_STATE keeps for `for` is there for `keep_firing_for` too, so that an alert whose condition has ended
# fires on for the rest of its time. Seen: it survives a reload of the configuration, not a restart: the alert is gone at once,
# and Alertmanager resolves it, or ends what it inhibits, minutes too early. An alert whose condition still holds is restored
# with the time it had (here with --rules.alert.for-grace-period=0s; by default only where `for` is longer than ten minutes).
set -euo pipefail
folder=$(mktemp -d) pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq prometheus
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
target=$(free) port=$(free)
cat > target.py << 'PYTHON'
import http.server, pathlib, sys
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(pathlib.Path("metrics").read_bytes())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Metrics).serve_forever()
PYTHON
cat > prometheus.yml << YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs: [{job_name: target, static_configs: [{targets: ["127.0.0.1:$target"]}]}]
YAML
cat > rules.yml << 'YAML'
groups:
  - name: alerts
    rules:
      - {alert: Over, expr: over == 1, keep_firing_for: 1h}
      - {alert: Broken, expr: broken == 1, for: 2s}
YAML
start() {
    usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.enable-lifecycle \
        --web.listen-address="127.0.0.1:$port" --rules.alert.for-grace-period=0s >> log 2>&1 & pids+=($!)
}
firing() { curl -s "127.0.0.1:$port/api/v1/alerts" | python3 -c 'import json, sys
print(*sorted(a["labels"]["alertname"] for a in json.load(sys.stdin)["data"]["alerts"] if a["state"] == "firing"))' 2> /dev/null; }
await() { for _ in $(seq 60); do [[ "$(firing)" == $1 ]] && return; sleep 0.5; done; echo "timed out: $(firing)"; exit 1; }
printf 'over 1\nbroken 1\n' > metrics
python3 target.py "$target" 2> /dev/null & pids+=($!)
start
await "Broken Over"
printf 'over 0\nbroken 1\n' > metrics
sleep 3; curl -sf -X POST "127.0.0.1:$port/-/reload"; sleep 3
reloaded=$(firing)
kill "${pids[1]}"; wait "${pids[1]}" || true
start
await "Broken*"; sleep 3
echo "firing after a reload:  $reloaded"
echo "firing after a restart: expected Broken Over, seen $(firing)"
[ "$reloaded" = "Broken Over" ] && [ "$(firing)" = "Broken" ]
