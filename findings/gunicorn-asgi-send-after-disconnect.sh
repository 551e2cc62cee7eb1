#!/usr/bin/env bash
# gunicorn 27's own asgi worker and Starlette's StreamingResponse: each leaves it to the other to notice that a client left.
# The worker announces ASGI 2.4 or later, where send() raises OSError once the client is gone, so Starlette does not listen for
# http.disconnect. But send() drops the data silently, and the task is cancelled three seconds after the client left.
# Guessed: a stream whose client leaves ends within its next chunk. Seen: it goes on for 3 s, and one that ends sooner is
# not interrupted at all. Whoever counts abandoned streams counts them as complete there.
set -euo pipefail
folder=$(mktemp -d) server=""
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gunicorn==27.0.1 starlette==1.10.0
cat > service.py <<'PYTHON'
import asyncio, time
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
ends = []
async def stream(request):
    async def body():
        began = time.monotonic()
        try:
            for _ in range(int(request.query_params["tenths"])):
                yield b"x" * 100
                await asyncio.sleep(0.1)
            ends.append("complete")
        except BaseException as error:
            ends.append(f"{type(error).__name__} after {time.monotonic() - began:.0f} s")
            raise
    ends.append(request.scope["asgi"]["spec_version"])
    return StreamingResponse(body())
app = Starlette(routes=[Route("/stream", stream), Route("/ends", lambda request: JSONResponse(ends))])
PYTHON
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/python -m gunicorn -k asgi -b "127.0.0.1:$port" --no-control-socket service:app > log 2>&1 &
server=$!
ask() { python3 - "$port" "$1" <<'PYTHON'
import socket, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(f"GET {sys.argv[2]} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    if sys.argv[2] == "/ends":
        print(b"".join(iter(lambda: s.recv(65536), b"")).split(b"\r\n\r\n")[1].decode())
    else:
        time.sleep(0.5)
PYTHON
}
for _ in $(seq 100); do ask /ends > /dev/null 2>&1 && break; sleep 0.2; done
ask "/stream?tenths=15"; sleep 3     # ends 1 s after its client left
ask "/stream?tenths=200"; sleep 6
seen=$(ask /ends)
echo "gunicorn 27.0.1, starlette 1.10.0: $seen"
echo 'expected: both end within a tenth of a second; seen: ["2.x", "complete", "2.x", "CancelledError after 3 s"]'
[[ "$seen" =~ ^.*complete.*(CancelledError|GeneratorExit)\ after\ [34]\ s.*$ ]]
