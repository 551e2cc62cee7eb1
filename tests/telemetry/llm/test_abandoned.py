"""A synchronous generator inside StreamingResponse, as many services have it, whose client leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from app.telemetry.llm import AbandonedCallsMiddleware, track_call
from tests.running import wait_until
from tests.telemetry.llm.fake_provider import FakeProvider, openai_stream
from tests.telemetry.llm.measured import measured
from tests.telemetry.llm.sdks import openai


@pytest.fixture
def service(fake: FakeProvider, model: str) -> Iterator[str]:
    app = FastAPI()
    app.add_middleware(AbandonedCallsMiddleware)
    client = openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0)

    @app.get("/ask")
    def ask() -> StreamingResponse:
        def answer() -> Iterator[str]:
            with track_call("openai", model) as call:
                messages: Any = [{"role": "user", "content": "Hi"}]
                for chunk in call.stream(client.chat.completions.create(model="m", messages=messages, stream=True)):
                    if chunk.choices:
                        yield (chunk.choices[0].delta.content or "") * 4096

        return StreamingResponse(answer())

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_call_ends_with_its_request(service: str, fake: FakeProvider, model: str) -> None:
    """Without waiting for the garbage collector: nothing here allocates enough to make it run."""
    fake.replies = [openai_stream(tuple("word " for _ in range(20_000)))]
    with httpx2.stream("GET", f"{service}/ask", timeout=60) as response:
        next(response.iter_bytes())
    wait_until(lambda: "llm_requests_in_progress" not in measured("openai", model))
    wait_until(lambda: fake.open_exchanges == 0)
    assert fake.exchanges[0].client_left
    assert measured("openai", model)["llm_requests_total{operation=chat,outcome=cancelled}"] == 1


def test_a_whole_answer_is_left_alone(service: str, fake: FakeProvider, model: str) -> None:
    fake.replies = [openai_stream(("Hello",))]
    assert httpx2.get(f"{service}/ask", timeout=60).text == "Hello" * 4096
    assert measured("openai", model)["llm_requests_total{operation=chat,outcome=success}"] == 1
