#!/usr/bin/env bash
# PromQL treats a label that a series lacks as the empty string, which `.*` matches: {missing!~".*"} finds nothing in
# Prometheus. VictoriaMetrics takes the matcher for {missing!~".+"} and finds every series without the label. So Grafana's
# usual trick, a selector that is switched off while a variable is at All (`.*`), sums two alternatives there.
set -euo pipefail
folder=$(mktemp -d)
cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq victoria-metrics
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
usr/bin/victoria-metrics -storageDataPath=data -httpListenAddr="127.0.0.1:$port" -search.latencyOffset=0s > log 2>&1 &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
found() { curl -sfG "http://127.0.0.1:$port/api/v1/query" -d nocache=1 --data-urlencode "query=count($1)" | grep -o '"[0-9]*"\]' || echo none; }
until curl -sf "http://127.0.0.1:$port/health" > /dev/null; do sleep 0.2; done
curl -sf "http://127.0.0.1:$port/api/v1/import/prometheus" -d 'thing{job="app"} 1'
until [ "$(found thing)" != none ]; do sleep 0.5; done
missing=$(found 'thing{missing!~".*"}') present=$(found 'thing{job!~".*"}')
echo "expected, as in Prometheus: {missing!~\".*\"} none, {job!~\".*\"} none"
echo "seen:                       {missing!~\".*\"} $missing, {job!~\".*\"} $present"
[ "$missing $present" = '"1"] none' ]
