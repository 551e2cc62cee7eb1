#!/usr/bin/env bash
# FastAPI 0.165's `max_body_size` and a request whose Content-Length is above it.
#
# Guessed: it is refused before anything of the application runs, as a proxy refuses it. Seen: the application runs. An endpoint
# that does not read its body does all it has to do, and answers 200; every middleware sees that 200; only then the answer is
# exchanged for a 413 on its way out, by an exception through the middlewares' send(). So the work was done, the client gets
# an answer that it was not, and whatever counts answers inside of the limit counts a 200 and an exception.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio

import fastapi
import httpx

app = fastapi.FastAPI(max_body_size=10)
done, seen = [], []


class Watch:
    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        async def watched(message):
            seen.append(message.get("status", message["type"]))
            await send(message)

        try:
            await self.inner(scope, receive, watched)
        except Exception as error:
            seen.append(type(error).__name__)
            raise


app.add_middleware(Watch)


@app.post("/jobs")
async def start_job() -> str:
    done.append("job")
    return "started"


async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return await client.post("/jobs", content=b"x" * 11)


answer = asyncio.run(main())
print("fastapi", fastapi.__version__)
print("expected: the client gets 413, nothing ran")
print(f"seen: the client gets {answer.status_code}, done {done}, the middleware saw {seen}")
assert answer.status_code == 413 and done == ["job"] and seen[0] == 200 and len(seen) == 2, "the behaviour has changed"
PYTHON
