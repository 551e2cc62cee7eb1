#!/usr/bin/env bash
# redis-py 8.1 and a server that is down: how long a call with timeouts of 0.1 s takes.
#
# Guessed: a refused connection fails at once, as it did for years; socket_timeout and socket_connect_timeout bound it otherwise.
# Seen: the call is tried ten times more, with pauses of up to a second that lie outside of both timeouts: usually three to five
# seconds, in a thread or in the event loop's task, for each request that wants its rate limit or its cache. So an outage of
# something optional exhausts what waits for it. valkey-py 6.2, a fork of it, fails at once with the same
# arguments. Retry(NoBackoff(), 0) brings that back. The pauses are recorded here instead of slept.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkey==6.2.0
"$folder/venv/bin/python" - << 'PYTHON'
import socket
import time

pauses = []
time.sleep = pauses.append  # before the clients import it

import redis
import valkey
from redis.backoff import NoBackoff
from redis.retry import Retry

attempts = 0


class Counted(socket.socket):
    def connect(self, address):
        global attempts
        attempts += 1
        super().connect(address)


with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))  # and never listens: every connection is refused
    place = {"host": "127.0.0.1", "port": taken.getsockname()[1], "socket_timeout": 0.1, "socket_connect_timeout": 0.1}
    socket.socket = Counted
    seen = {}
    calls = {
        "redis-py": redis.Redis(**place),
        "redis-py, Retry(NoBackoff(), 0)": redis.Redis(**place, retry=Retry(NoBackoff(), 0)),
        "valkey-py": valkey.Valkey(**place),
    }
    for name, client in calls.items():
        attempts = 0
        pauses.clear()
        try:
            client.get("limit")
        except (redis.ConnectionError, valkey.ConnectionError):
            seen[name] = attempts, len(pauses)
            print(f"{name}: {attempts} attempts, pauses {[round(pause, 2) for pause in pauses]}, {sum(pauses):.1f} s")
print("redis-py", redis.__version__, "valkey-py", valkey.__version__, "expected: one attempt each, no pause")
assert seen["redis-py"][0] == 11 and seen["redis-py"][1] == 10, "the behaviour has changed"
assert seen["redis-py, Retry(NoBackoff(), 0)"] == (1, 0) and seen["valkey-py"][1] == 0, "the behaviour has changed"
PYTHON
