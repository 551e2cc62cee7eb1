#!/usr/bin/env bash
# uvicorn 0.54, hypercorn 0.18, granian 2.8, and the close code that a WebSocket's client sees when its handler raises, or returns.
#
# Guessed: 1011, "internal error", for a handler that raises, and 1000 for one that returns without closing, as FastAPI's may. Seen: no
# server distinguishes the two, and no two servers agree. uvicorn drops the connection without a close frame, which a client reports
# as 1006, a broken network; hypercorn says 1011, for the handler that has come to its end too; granian sends a close frame without a
# code, 1005, the end of an orderly conversation. So a client that reconnects after 1006 and 1011 only stays away after every crash
# under granian, reconnects after every orderly end under the others, and its counts of errors change with the server.
set -euo pipefail
folder=$(mktemp -d) server=
trap 'if [ -n "$server" ]; then kill "$server"; wait "$server" || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 websockets==17.4 hypercorn==0.18.0 granian==2.8.9
cat > service.py << 'PYTHON'
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    if (await receive()).get("text") == "raise":
        raise RuntimeError("a bug")
PYTHON
cat > client.py << 'PYTHON'
import sys
import time
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

def code(last_words):
    for _ in range(300):
        try:
            socket = connect(f"ws://127.0.0.1:{sys.argv[1]}/", open_timeout=60, proxy=None)
            break
        except OSError:
            time.sleep(0.2)
    socket.send(last_words)
    try:
        return socket.recv(timeout=60)
    except ConnectionClosed:
        return socket.close_code

print(f"{int(code('raise'))} {int(code('return'))}")
PYTHON
served() { # by a server that takes this command
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "venv/bin/$1" service:app "${@:2}$port" > log 2>&1 & server=$!
    seen=$(venv/bin/python -W ignore client.py "$port")
    kill "$server"; wait "$server" || true; server=
}
served uvicorn --lifespan=off --port=; uvicorn=$seen
served hypercorn --bind=127.0.0.1:; hypercorn=$seen
served granian --interface=asginl --port=; granian=$seen
echo "close codes of a handler that raises, and of one that returns; expected: 1011 1000"
echo "seen: uvicorn $uvicorn, hypercorn $hypercorn, granian $granian"
[ "$uvicorn, $hypercorn, $granian" = "1006 1006, 1011 1011, 1005 1005" ]
