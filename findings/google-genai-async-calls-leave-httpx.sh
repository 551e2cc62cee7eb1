#!/usr/bin/env bash
# Google's GenAI SDK 3.6 and the HTTP client of its asynchronous calls.
#
# Guessed: httpx2, as for its synchronous calls. Seen: so it is until aiohttp can be imported, which another library may bring at any
# update. From then on asynchronous calls go over aiohttp, and a stream that breaks off raises aiohttp.ClientPayloadError instead of
# httpx2.RemoteProtocolError; neither is google.genai.errors.APIError. So an instrumentation of the HTTP client, an `except`, and an
# error class in a metric fall silent, or change, with a dependency that nobody connects with them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check google-genai==3.6.1
cat > "$folder/breaks.py" << 'PYTHON'
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google import genai

PIECE = f'data: {json.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}}]})}\n\n'


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(PIECE):x}\r\n{PIECE}\r\n".encode())
        self.close_connection = True  # and no last chunk

    log_message = lambda *_: None


async def asynchronous():
    async for _ in await client.aio.models.generate_content_stream(model="m", contents="Hi"):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = genai.Client(api_key="none", http_options={"base_url": f"http://127.0.0.1:{server.server_port}"})
for call in (lambda: list(client.models.generate_content_stream(model="m", contents="Hi")), lambda: asyncio.run(asynchronous())):
    try:
        call()
    except Exception as error:
        assert not isinstance(error, genai.errors.APIError)
        print(type(error).__module__.split(".")[0], type(error).__name__, sep=".", end=" ")
PYTHON
before=$("$folder/venv/bin/python" "$folder/breaks.py")
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiohttp==3.14.5
after=$("$folder/venv/bin/python" "$folder/breaks.py")
echo "google-genai 3.6.1, a stream that breaks off, synchronous and asynchronous; expected the same four times"
echo "seen without aiohttp: $before"
echo "seen with aiohttp:    $after"
[ "$before" = "httpx2.RemoteProtocolError httpx2.RemoteProtocolError " ]
[ "$after" = "httpx2.RemoteProtocolError aiohttp.ClientPayloadError " ]
