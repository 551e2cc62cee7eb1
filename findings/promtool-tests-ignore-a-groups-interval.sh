#!/usr/bin/env bash
# `promtool test rules` and a rule group with an `interval` of its own (seen alike in 2.42 and 3.13).
#
# Guessed: the test evaluates the group as the server does, every ten minutes here, as it loads the same file and simulates the
# time. Seen: it evaluates every group at the test's evaluation_interval. So a test is green for an alert that comes up to ten
# minutes later in production, for a recorded series that has gaps there (a sample is looked for during five minutes), and for
# sums over recorded samples, whose number is another one. `promtool check rules` does not object either.
set -euo pipefail
folder=$(mktemp -d) server=
trap 'if [ -n "$server" ]; then kill "$server"; wait "$server" || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq prometheus
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
cat > rules.yml << 'YAML'
groups:
  - name: rare
    interval: 10m
    rules:
      - {record: copy, expr: original}
      - {alert: High, expr: original > 5}
YAML
cat > test.yml << 'YAML'
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series: [{series: original, values: 0+1x30}]
    promql_expr_test: # none, and 2, with a sample every ten minutes
      - {expr: copy, eval_time: 7m, exp_samples: [{labels: copy, value: 7}]}
      - {expr: "count_over_time(copy[19m30s])", eval_time: 30m, exp_samples: [{labels: "{}", value: 20}]}
    alert_rule_test: # not before the tenth minute
      - {eval_time: 6m, alertname: High, exp_alerts: [{}]}
YAML
usr/bin/promtool check rules rules.yml
echo "expected: failures in three places; seen:"
usr/bin/promtool test rules test.yml

# The server does as the file says.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
echo '{global: {evaluation_interval: 1s}, rule_files: [rules.yml]}' > prometheus.yml
usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address="127.0.0.1:$port" > log 2>&1 & server=$!
rules() { curl -sf "127.0.0.1:$port/api/v1/rules" | grep -o '"interval":[0-9]*'; }
for _ in $(seq 60); do rules > /dev/null && break; sleep 0.5; done
echo "the server: $(rules) seconds"
[ "$(rules)" = '"interval":600' ]
