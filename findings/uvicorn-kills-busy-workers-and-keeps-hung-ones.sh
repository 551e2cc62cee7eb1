#!/usr/bin/env bash
# uvicorn 0.54 with --workers and its health check (--timeout-worker-healthcheck, five seconds): which workers it replaces.
#
# Guessed: one whose event loop is blocked, as it serves nobody; not one that computes in a thread while its event loop waits. Seen: the
# other way round. The parent's ping is answered by a thread beside the event loop, so a worker that hangs in time.sleep(), a lock or a
# synchronous query passes for as long as it hangs. What the thread needs is the interpreter's lock: C code that keeps it for more than
# five seconds (here a sum, in practice a large json.loads or a regular expression) gets the worker killed by SIGKILL, with all requests
# that it serves and without shutdown. The log calls it "died".
set -euo pipefail
folder=$(mktemp -d) server=
trap 'if [ -n "$server" ]; then kill "$server"; wait "$server" || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0
cat > service.py << 'PYTHON'
import asyncio, itertools, os, time

async def app(scope, receive, send):
    if scope["path"] == "/hang":
        time.sleep(20)
    if scope["path"] == "/compute":
        await asyncio.to_thread(sum, itertools.repeat(0, 10**11))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done by %d" % os.getpid()})
PYTHON
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/uvicorn service:app --workers 2 --lifespan off --port "$port" > log 2>&1 & server=$!
for _ in $(seq 300); do curl -sf "127.0.0.1:$port/" > answer && break; sleep 0.2; done
ask() { curl -s --max-time 60 "127.0.0.1:$port$1" || echo "nothing: curl's exit code is $?"; }
died() { grep -c 'Child process .* died' log || true; }
hung=$(ask /hang) died_by_hanging=$(died)
computed=$(ask /compute)
for _ in $(seq 50); do [ "$(died)" -gt "$died_by_hanging" ] && break; sleep 0.2; done
venv/bin/uvicorn --version
echo "expected: the event loop that is blocked for 20 s is noticed, the one beside a thread that computes is left alone"
echo "seen:     blocked: $hung, $died_by_hanging workers died; a thread computes: $computed, $(($(died) - died_by_hanging)) died"
[[ "$hung" == "done by"* && "$computed" == nothing:*" 52" && "$died_by_hanging $(died)" == "0 1" ]]
