#!/usr/bin/env bash
# Within one backend HAProxy gives an address that DNS answers with to one server-template slot only: whichever template
# came first has it, and a second template of the same name and port (say, one that is checked, and a backup that is not)
# stays in maintenance for ever, without a line in the log. In a backend of its own the very same template gets it.
set -euo pipefail
folder=$(mktemp -d) && cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
dpkg-deb --show --showformat '${Package} ${Version}\n' ./haproxy_*.deb
for package in ./*.deb; do dpkg-deb --extract "$package" .; done
LD_LIBRARY_PATH=$(echo "$folder"/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH
cat > dns.py << 'PY'
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:  # 127.0.0.9 for every name; nothing to a question for IPv6
    query, client = server.recvfrom(4096)
    question = query[12 : query.index(b"\0", 12) + 5]
    found = question[-4:-2] == b"\0\1"
    record = b"\xc0\x0c\0\1\0\1" + bytes(4) + b"\0\4" + socket.inet_aton("127.0.0.9") if found else b""
    server.sendto(query[:2] + b"\x81\x80\0\1" + bytes([0, found]) + bytes(4) + question + record, client)
PY
python3 dns.py > dns.port &
processes=$!
trap 'kill $processes; rm -rf "$folder"' EXIT && for _ in $(seq 100); do [ -s dns.port ] && break; sleep 0.1; done
cat > haproxy.cfg << CFG
global
    stats socket $folder/admin.sock level admin
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
resolvers here
    nameserver dns 127.0.0.1:$(cat dns.port)
    hold valid 1s
backend together
    server-template first 1 app:8000 resolvers here resolve-prefer ipv4 init-addr none
    server-template second 1 app:8000 backup resolvers here resolve-prefer ipv4 init-addr none
backend apart
    server-template second 1 app:8000 resolvers here resolve-prefer ipv4 init-addr none
CFG
usr/sbin/haproxy -db -f haproxy.cfg > log 2>&1 &
processes="$processes $!"
cat > state.py << 'PY'
import socket
with socket.socket(socket.AF_UNIX) as admin:
    admin.connect("admin.sock")
    admin.sendall(b"show servers state\n")
    lines = b"".join(iter(lambda: admin.recv(65536), b"")).decode().splitlines()
print(*(f"{words[1]}/{words[3]}={words[4]}" for words in map(str.split, lines) if len(words) > 10 and words[1] in ("together", "apart")))
PY
for _ in $(seq 20); do sleep 1; python3 state.py > state 2> /dev/null || true; done # several rounds of questions
grep -q 'apart/second1=127.0.0.9' state && grep -q 'together/first1=127.0.0.9' state
echo "expected: 127.0.0.9 for every slot, as every one asks for app:8000"
echo "seen:     $(cat state)"
grep -q 'together/second1=127.0.0.9' state && exit 1
grep -q 'together/second1=' state
