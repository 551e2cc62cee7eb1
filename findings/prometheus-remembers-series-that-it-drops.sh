#!/usr/bin/env bash
# Prometheus and series that `metric_relabel_configs` drop.
#
# Guessed: what is dropped before it is stored costs CPU at each scrape, and no memory once the scrape is over. Seen (2.42, 3.13):
# the target's scrape cache remembers the text of each dropped series, so as to drop it faster next time. In use are 130 to
# 180 bytes more for each. Only a target that shows less saves that.
set -euo pipefail
folder=$(mktemp -d) pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq prometheus
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
target=$(free)
cat > target.py << 'PYTHON'
import http.server, sys
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = "".join(f'dropped{{endpoint="/items",le="{i}"}} 1\n' for i in range(int(self.path[1:])))
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(f"kept 1\n{text}".encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Metrics).serve_forever()
PYTHON
python3 target.py "$target" 2> /dev/null & pids+=($!)
bytes() {  # in use, when a target has shown this many series that are all dropped
    port=$(free)
    cat > "$1.yml" << YAML
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: target
    metrics_path: /$1
    static_configs: [{targets: ["127.0.0.1:$target"]}]
    metric_relabel_configs: [{source_labels: [__name__], regex: dropped, action: drop}]
YAML
    usr/bin/prometheus --config.file="$1.yml" --storage.tsdb.path="data-$1" --web.listen-address="127.0.0.1:$port" > "log-$1" 2>&1 &
    pids+=($!)
    for ((tries = 0; ; tries++)); do
        curl -sG "127.0.0.1:$port/api/v1/query" --data-urlencode 'query=count_over_time(kept[1m]) >= 5' | grep -q '"value"' && break
        [ "$tries" -lt 120 ] || { echo "no five scrapes within a minute" >&2; exit 1; }
        sleep 0.5
    done
    if curl -sf "127.0.0.1:$port/api/v1/series?match\[\]=dropped" | grep endpoint; then echo "not dropped" >&2; exit 1; fi
    curl -sf "127.0.0.1:$port/debug/pprof/heap?gc=1&debug=1" | sed -n '1s/^heap profile: [0-9]*: \([0-9]*\).*/\1/p' > "bytes-$1"
    kill $! && wait $! || true
}
bytes 0
bytes 100000  # in this shell, so that what it starts is ended with it
each=$((($(< bytes-100000) - $(< bytes-0)) / 100000))
echo "bytes in use per dropped series: expected about 0, seen $each"
[ "$each" -ge 80 ]
