#!/usr/bin/env bash
# SQLAlchemy 2.1's event handle_error, from which instrumentations count the errors of a database.
#
# Guessed: every exception that SQLAlchemy raises while a connection is used or sought, as it hears of failed connects and pings since
# 2.0, and even of a parameter that never reaches the server. Seen: a pool that is exhausted, the usual end of an overloaded service,
# is not among them, and none of the pool's own ten events is fired either: the requests that fail for want of a connection leave no
# trace in errors, queries or checkouts. An error of a statement that is run on the driver's own connection, as COPY is, is missing
# too. Only who wraps connect(), or counts the requests that fail, knows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sqlalchemy==2.1.9
venv/bin/python - << 'PYTHON'
import sqlalchemy
from sqlalchemy import event, literal, select, text
from sqlalchemy.pool import QueuePool

POOL_EVENTS = "first_connect connect checkout checkin reset invalidate soft_invalidate close detach close_detached".split()
heard = []


def listen(engine):
    event.listen(engine, "handle_error", lambda context: heard.append(type(context.original_exception).__name__))


def raised(run):
    heard.clear()
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}, heard: {', '.join(heard) or 'nothing'}"


engine = sqlalchemy.create_engine("sqlite:///file", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.2)
nowhere = sqlalchemy.create_engine("sqlite:////no/such/folder/file")
listen(engine), listen(nowhere)
with engine.connect() as connection:  # the only one
    for name in POOL_EVENTS:
        event.listen(engine, name, lambda *_, name=name: heard.append(name))
    seen = {
        "no connection": raised(nowhere.connect),
        "syntax": raised(lambda: connection.execute(text("SELEC"))),
        "parameter": raised(lambda: connection.execute(select(literal("1", sqlalchemy.DateTime)))),
        "driver's own": raised(lambda: connection.connection.driver_connection.execute("SELEC")),
        "exhausted pool": raised(engine.connect),
    }
print("SQLAlchemy", sqlalchemy.__version__, "expected: each is heard; seen:")
for name, what in seen.items():
    print(f"{name:>15}: {what}")
silent = [name for name, what in seen.items() if what.endswith("heard: nothing")]
assert silent == ["driver's own", "exhausted pool"] and "TimeoutError" in seen["exhausted pool"], "the behaviour has changed"
PYTHON
