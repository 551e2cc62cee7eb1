#!/usr/bin/env bash
# Prometheus and a configuration file that is empty, as for a server that only answers queries or takes remote writes.
#
# Guessed: it means the defaults, among them a collection of garbage when the heap has grown by 75 %. Seen (2.53.3): where
# the file says nothing at all that default is never set, and the growth allowed is 0 %: it collects without a pause, and
# queries take several times the CPU. Any key, even `global: {}`, brings the default back. The log says nothing of it.
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
growth() {  # what it says it allows, with the configuration $2, in the file $1
    printf '%s' "$2" > "$1.yml"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    usr/bin/prometheus --config.file="$1.yml" --storage.tsdb.path="data-$port" --web.listen-address="127.0.0.1:$port" > log 2>&1 &
    pids+=($!)
    for ((tries = 0; ; tries++)); do
        curl -sf "127.0.0.1:$port/-/ready" > /dev/null && break
        [ "$tries" -lt 120 ] || { cat log >&2; exit 1; }
        sleep 0.25
    done
    curl -sf "127.0.0.1:$port/api/v1/status/runtimeinfo" | grep -o '"GOGC":"[^"]*"' > "$1"
}
growth empty ''  # in this shell, so that what it starts is ended with it
growth minimal 'global: {}'
echo "an empty file: expected \"GOGC\":\"75\", seen $(< empty); with global: {}: $(< minimal)"
grep -q '"0"' empty && grep -q '"75"' minimal
