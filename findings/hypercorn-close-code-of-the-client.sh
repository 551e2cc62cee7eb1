#!/usr/bin/env bash
# hypercorn and a WebSocket that its client closes: the ASGI message websocket.disconnect has a code, "the WebSocket close code".
# A client that closes with a code of its own (1001, going away; 4001, one of the application's) says it in its close frame,
# and hypercorn answers that frame with the same code. Guessed: the application receives 1001 and 4001, as by uvicorn.
# Seen: it receives 1006, which stands for a connection that was lost without any close frame. Whoever counts close codes, or
# treats 1006 as a broken network, takes every orderly close for a loss there.
set -euo pipefail
folder=$(mktemp -d) server=""
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check hypercorn==0.18.0 wsproto==1.3.2 websocket-client==1.9.2
cat > service.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        print("received", message["type"], message["code"], flush=True)
PYTHON
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/python -m hypercorn -b "127.0.0.1:$port" service:app > log 2>&1 &
server=$!
for _ in $(seq 100); do grep -q "Running on" log && break; sleep 0.2; done
venv/bin/python - "$port" <<'PYTHON'
import struct, sys
from websocket import create_connection
for code in (1001, 4001):
    socket = create_connection(f"ws://127.0.0.1:{sys.argv[1]}/", timeout=30)
    socket.send_close(code)
    print("closed with", code, "answered with", struct.unpack("!H", socket.recv_frame().data[:2])[0])
    socket.shutdown()
PYTHON
for _ in $(seq 100); do [ "$(grep -c received log)" -ge 2 ] && break; sleep 0.2; done
seen=$(grep -o "received .*" log | tr '\n' ';')
echo "hypercorn 0.18.0: expected: received websocket.disconnect 1001;received websocket.disconnect 4001; seen: $seen"
[ "$seen" = "received websocket.disconnect 1006;received websocket.disconnect 1006;" ]
