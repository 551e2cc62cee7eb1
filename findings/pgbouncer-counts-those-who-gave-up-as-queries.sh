#!/usr/bin/env bash
# PgBouncer's statistics (SHOW STATS) while its pool is exhausted (Debian's 1.18).
#
# Guessed: total_wait_time is all "time spent by clients waiting for a server", and total_query_count the queries that were pooled.
# Seen: a client's time is added when it gets a server; one that query_wait_timeout turns away adds none, but is counted as a query
# and a transaction that took no time. The worse it is, the better it looks: here four clients wait two seconds each in vain, which
# makes six queries out of two, half a second of waiting, and an average query time of a third: a busy and fast database, where two
# of three clients are turned away. No counter has the timeouts: watch cl_waiting in SHOW POOLS, and the log.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder" && cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq pgbouncer libc-ares2 libevent-2.1-7
for package in ./*.deb; do dpkg-deb --extract "$package" .; done
dpkg-deb --show --showformat '${Package} ${Version}\n' ./pgbouncer_*.deb
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'psycopg[binary]==3.3.9'
LD_LIBRARY_PATH=$(echo "$folder"/usr/lib/*-linux-gnu) venv/bin/python - << 'PYTHON'
import os, pathlib, socket, socketserver, subprocess, threading, time
import psycopg

READY = b"Z\0\0\0\5I"
HELLO = b"R\0\0\0\10\0\0\0\0S\0\0\0\26server_version\00018\0K\0\0\0\14\0\0\0\1\0\0\0\2" + READY
class Database(socketserver.StreamRequestHandler):  # needs three seconds for every query
    def handle(self):
        self.request.recv(9999), self.request.sendall(HELLO)
        while self.request.recv(9999)[:1] == b"Q":
            time.sleep(3)
            self.request.sendall(b"C\0\0\0\10SET\0" + READY)
def ask(database, query, pause=0):
    time.sleep(pause)
    place = {"host": "127.0.0.1", "port": port, "user": "any", "dbname": database, "sslmode": "disable", "gssencmode": "disable"}
    with psycopg.connect(**place, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        cursor = connection.execute(query)
        return cursor.description and [dict(zip([column.name for column in cursor.description], row)) for row in cursor]
def client(pause):
    try:
        ends.append(ask("shop", "SET jit = on", pause) or "served")
    except psycopg.OperationalError as error:
        ends.append(str(error).split()[0])
ends, server = [], socketserver.ThreadingTCPServer(("127.0.0.1", 0), Database)
server.daemon_threads = threading.Thread(target=server.serve_forever, daemon=True).start() is None
with socket.create_server(("127.0.0.1", 0)) as free: port = free.getsockname()[1]
pathlib.Path("users").write_text('"any" ""')
pathlib.Path("ini").write_text(f"""[databases]\nshop = host=127.0.0.1 port={server.server_address[1]}\n[pgbouncer]\nauth_type = trust
listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_file = users\nadmin_users = any\npool_mode = transaction
default_pool_size = 1\nquery_wait_timeout = 2""")
other = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}  # it does not run as root
with subprocess.Popen(["usr/sbin/pgbouncer", "-q", "ini"], stderr=subprocess.DEVNULL, **other) as bouncer:
    time.sleep(3)
    clients = [threading.Thread(target=client, args=[pause]) for pause in (0, 0.3, 0.3, 0.3, 0.3, 2.5)]
    for step in threading.Thread.start, threading.Thread.join: [step(each) for each in clients]
    stats = next(row for row in ask("pgbouncer", "SHOW STATS") if row["database"] == "shop")
    bouncer.terminate()
print("clients:", *ends, "\nexpected: 2 queries, of 3 s each, and at least 8 s of waiting")
queries, busy, waited = [int(stats[f"total_{name}"]) for name in ("query_count", "query_time", "wait_time")]
print(f"seen:     {queries} queries, of {busy / queries / 1e6:.1f} s each, and {waited / 1e6:.1f} s of waiting")
assert sorted(ends) == ["query_wait_timeout"] * 4 + ["served"] * 2 and queries == 6 and waited < 2e6, "the behaviour has changed"
PYTHON
