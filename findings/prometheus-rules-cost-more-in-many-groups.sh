#!/usr/bin/env bash
# Prometheus and how rules are split into groups.
#
# Guessed: a rule costs the same in whichever group it is, so groups can be as small as their subjects. Seen (2.53.3): the
# first rules of a group cost several times what they cost later in it, even `vector(1)`; each group starts at a moment of
# its own within the interval, with whatever has gone cold since the last one. 200 rules in 100 groups took three to four
# times what they took in one.
set -euo pipefail
folder=$(mktemp -d) pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p sources lists/partial cache/archives/partial
sed '/^$/,$d; s/^Suites: .*/Suites: trixie/' /etc/apt/sources.list.d/debian.sources > sources/debian.sources  # has 2.53
apt=(apt-get -qq -o "Dir::Etc::sourceparts=$folder/sources" -o Dir::Etc::sourcelist=/dev/null
    -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" download prometheus
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
run() {  # the same 200 rules in $1 groups
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    python3 - "$1" > "rules-$1.yml" << 'PYTHON'
import json, sys
groups = int(sys.argv[1])
rules = [{"record": f"one:{number}", "expr": "vector(1)"} for number in range(200)]
print(json.dumps({"groups": [{"name": f"group{at}", "rules": rules[at::groups]} for at in range(groups)]}))
PYTHON
    printf 'global: {evaluation_interval: 5s}\nrule_files: [rules-%s.yml]\n' "$1" > "$1.yml"
    usr/bin/prometheus --config.file="$1.yml" --storage.tsdb.path="data-$1" --web.listen-address="127.0.0.1:$port" > log 2>&1 &
    pids+=($!) ports+=("$port")
}
milliseconds() {  # of an evaluation of all rules, the mean since the start
    curl -sf "127.0.0.1:$1/metrics" | awk '/^prometheus_rule_group_duration_seconds_sum/ {sum = $2}
        /^prometheus_rule_evaluations_total/ {rules += $2} END {printf "%.2f\n", 1000 * sum / rules * 200}'
}
ports=()
run 1
run 100
sleep 60
few=$(milliseconds "${ports[0]}") many=$(milliseconds "${ports[1]}")
echo "200 rules in one group: $few ms; in 100 groups: expected about the same, seen $many ms"
awk -v few="$few" -v many="$many" 'BEGIN {exit !(many > 2 * few)}'
