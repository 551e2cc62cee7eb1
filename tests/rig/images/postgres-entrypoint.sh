#!/bin/bash
# First start: make the cluster, set the superuser's password, make the database, run /docker-entrypoint-initdb.d.
# The same variables, order and results as upstream's image for what docker-compose.yml uses of it; and as there, the
# password is in the environment of the server that docker-entrypoint.sh becomes. docker-ensure-initdb.sh only prepares.
set -euo pipefail
[ $# -gt 0 ] || set -- postgres

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ "$1" = postgres ]; then
    export POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:-/dev/null}")}
    unset POSTGRES_PASSWORD_FILE
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    [ -n "$POSTGRES_PASSWORD" ] || { echo "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE must name the superuser's password" >&2; exit 1; }

    mkdir -p -m 700 "$PGDATA"
    # shellcheck disable=SC2086  # the arguments are words on purpose
    initdb --username="$user" --pwfile=<(echo "$POSTGRES_PASSWORD") ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"

    # A server that only this container reaches, with the settings of the real one.
    pg_ctl --wait start -o "-c listen_addresses='' ${*:2}"
    export PGUSER=$user PGPASSWORD=$POSTGRES_PASSWORD
    [ "$database" = postgres ] || createdb "$database"
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
        *.sh) echo "running $script"; if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
        *.sql) echo "running $script"; psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 --dbname "$database" --file "$script" ;;
        *) echo "ignoring $script" ;;
        esac
    done
    unset PGUSER PGPASSWORD
    pg_ctl --wait --mode=fast stop
    echo "PostgreSQL init process complete; ready for start up."
fi
[ "${0##*/}" = docker-ensure-initdb.sh ] || exec "$@"
