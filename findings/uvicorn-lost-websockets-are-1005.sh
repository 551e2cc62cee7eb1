#!/usr/bin/env bash
# uvicorn 0.54 and a WebSocket whose client vanishes without a close frame: a crash, a lost network, a proxy's timeout.
#
# Guessed: the application receives websocket.disconnect with code 1006, "closed abnormally", which the RFC has for this case, whichever
# library parses the frames. Seen: so it is with --ws websockets alone, which is deprecated. websockets-sansio, which `auto` picks, and
# wsproto report 1005: the code of a client that closes in order without giving a reason. So a count of 1006, the usual measure of
# broken connections, falls to zero with that change of library, and all of them look as if users had left.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 websockets==17.4 wsproto==1.3.2
venv/bin/python -W ignore - << 'PYTHON'
import asyncio
import base64

import uvicorn

UPGRADE = "GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
EMPTY_CLOSE_FRAME = b"\x88\x80\0\0\0\0"


async def codes(library):
    received = asyncio.Queue()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        received.put_nowait((await receive())["code"])

    server = uvicorn.Server(uvicorn.Config(app, port=0, ws=library, lifespan="off", log_level="error"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.1)
    port = server.servers[0].sockets[0].getsockname()[1]
    for last_words in (b"", EMPTY_CLOSE_FRAME):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{UPGRADE}Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(last_words)
        if last_words:
            await reader.read(9)  # the server's own close frame
        writer.close()
        yield int(await asyncio.wait_for(received.get(), 30))
    server.should_exit = True
    await running


async def main():
    return {library: [code async for code in codes(library)] for library in ("auto", "websockets-sansio", "wsproto", "websockets")}


seen = asyncio.run(main())
print(f"uvicorn {uvicorn.__version__}; expected: 1006 for a lost client, 1005 for one that closes without a code; seen:")
for library, (lost, closed) in seen.items():
    print(f"{library:>18}: lost {lost}, closed {closed}")
assert seen.pop("websockets") == [1006, 1005], "the behaviour has changed"
assert all(pair == [1005, 1005] for pair in seen.values()), "the behaviour has changed"
PYTHON
