#!/usr/bin/env bash
# Alertmanager and an alert that was notified, is then inhibited, and ends before its cause does (seen alike in 0.25 and 0.34).
#
# Guessed: the receiver gets `resolved` with the next flush of the group, or at the latest when the inhibition ends, since it
# was sent `firing`. Seen: it gets nothing, ever: a muted alert passes no message, and once the cause is over the resolved alert
# has been forgotten. So an incident that PagerDuty or a ticket system opened for the symptom stays open after every
# outage whose symptom came first and ended first, and whoever counts time to recovery from these messages counts days.
set -euo pipefail
folder=$(mktemp -d) pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq prometheus-alertmanager
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free) hook=$(free)
cat > receiver.py << 'PYTHON'
import http.server, json, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        for alert in json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"]:
            print(alert["labels"]["alertname"], alert["status"], flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
PYTHON
cat > alertmanager.yml << YAML
route: {receiver: hook, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: hook, webhook_configs: [{url: "http://127.0.0.1:$hook/", send_resolved: true}]}]
inhibit_rules: [{source_matchers: [alertname = Cause], target_matchers: [alertname = Symptom]}]
YAML
python3 receiver.py "$hook" > messages & pids+=($!)
# Debian's looks for its templates below /usr/share: they lie there for this process alone.
root=$([ "$(id -u)" = 0 ] || echo --map-root-user)
unshare ${root:+"$root"} --mount -- sh -c 'mount -t overlay templates -o lowerdir="$PWD/usr/share:/usr/share" /usr/share && exec "$@"' - \
  usr/bin/prometheus-alertmanager --config.file=alertmanager.yml --storage.path=data --cluster.listen-address= \
  --web.listen-address="127.0.0.1:$port" > log 2>&1 & pids+=($!)
for _ in $(seq 60); do curl -sf "127.0.0.1:$port/-/ready" > /dev/null && break; sleep 0.5; done
says() { # says NAME WHEN: what Prometheus sends for an alert that ends then
    curl -sf -H 'content-type: application/json' "127.0.0.1:$port/api/v2/alerts" \
      -d "[{\"labels\": {\"alertname\": \"$1\"}, \"endsAt\": \"$(date -u -d "$2" +%FT%TZ)\"}]"
}
await() { for _ in $(seq 120); do grep -qx "$1" messages && return; sleep 0.5; done; echo "timed out: $1"; exit 1; }
says Symptom '+10 minutes'; await "Symptom firing"
says Cause '+10 minutes'; await "Cause firing"
says Symptom '-1 second'; sleep 5
says Cause '-1 second'; await "Cause resolved"; sleep 10
echo "expected: Symptom firing, Cause firing, Symptom resolved, Cause resolved"
echo "seen:     $(paste -sd, messages)"
[ "$(paste -sd, messages)" = "Symptom firing,Cause firing,Cause resolved" ]
