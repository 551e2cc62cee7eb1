"""A fake provider: implements the wire protocols of OpenAI and Anthropic over real sockets, and counts requests.

It runs on an event loop and a thread of its own, answers each request with the next of its `replies` (the last one
again and again), and notes in `exchanges` what it was asked, how much it sent, and whether the client left early.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]


@dataclass
class Exchange:
    """One HTTP request and what became of it."""

    path: str
    headers: dict[str, str]
    body: Body
    events_sent: int = 0
    complete: bool = False
    client_left: bool = False


@dataclass
class Reply:
    """A whole answer, or a stream of events where `events` is given."""

    status: int = 200
    body: Body = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str | None, Body | str]] | None = None
    delay: float = 0.0
    """Seconds before the response starts."""
    first_delay: float = 0.0
    """Seconds between the response's headers and its first event."""
    stall_after: int | None = None
    """Send this many events, then nothing more until `resume` is set, or the client leaves."""
    resume: threading.Event | None = None
    cut: bool = False
    """Break the connection at the end, in the middle of the chunked body."""
    drop: bool = False
    """Break the connection without an answer."""


class FakeProvider:
    def __init__(self) -> None:
        self.replies: list[Reply | Callable[[Body], Reply]] = []
        self.exchanges: list[Exchange] = []
        self.port = 0
        self.open_exchanges = 0

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection ends with it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        exchange = Exchange(head[0].split(" ")[1], headers, body)
        self.exchanges.append(exchange)
        scripted = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        reply = scripted(body) if callable(scripted) else scripted

        async def leave() -> None:
            with suppress(ConnectionError):
                await reader.read(1)  # a client does not speak before it is answered, so this is its leaving
            exchange.client_left = True

        self.open_exchanges += 1
        answer = asyncio.ensure_future(self._answer(exchange, reply, writer))
        leaving = asyncio.ensure_future(leave())
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            exchange.client_left = exchange.client_left and not exchange.complete
            return exchange.complete and not reply.cut
        finally:
            self.open_exchanges -= 1
            answer.cancel()
            leaving.cancel()
            await asyncio.gather(answer, leaving, return_exceptions=True)

    async def _answer(self, exchange: Exchange, reply: Reply, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(reply.delay)
        if reply.drop:
            return
        headers = {"content-type": "application/json"} | reply.headers
        content = json.dumps(reply.body).encode()
        if reply.events is None:
            headers["content-length"] = str(len(content))
        else:
            headers |= {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
            content = b""
        lines = [f"HTTP/1.1 {reply.status} Reply", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + content)
        await writer.drain()
        if reply.events is not None:
            await asyncio.sleep(reply.first_delay)
            for number, (name, data) in enumerate(reply.events):
                if number == reply.stall_after:
                    while reply.resume and not reply.resume.is_set():  # noqa: ASYNC110  another thread sets it
                        await asyncio.sleep(0.01)
                    if reply.resume is None:
                        await asyncio.Event().wait()
                text = data if isinstance(data, str) else json.dumps(data)
                event = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
                writer.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
                await writer.drain()
                exchange.events_sent += 1
            if not reply.cut:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        exchange.complete = True


@contextmanager
def running() -> Iterator[FakeProvider]:
    provider = FakeProvider()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(provider._serve, "127.0.0.1", 0, limit=1 << 20, backlog=2048), loop
    ).result()
    provider.port = server.sockets[0].getsockname()[1]

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield provider
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# OpenAI's chat completions

OPENAI_USAGE: Body = {
    "prompt_tokens": 120,
    "completion_tokens": 30,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 100},
    "completion_tokens_details": {"reasoning_tokens": 10},
}


def openai_whole(finish_reason: str = "stop", usage: Body | None = OPENAI_USAGE, **reply: Any) -> Reply:
    message = {"role": "assistant", "content": "Hello to you"}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "as-served",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }
    return Reply(body=body if usage is None else body | {"usage": usage}, **reply)


def openai_chunks(
    pieces: list[Body], finish_reason: str | None, usage: Body | None, include_usage: bool
) -> list[tuple[str | None, Body | str]]:
    """As OpenAI streams: the role first, the usage last in a chunk without choices, if it was asked for."""

    def chunk(choices: list[Body], usage: Body | None = None) -> tuple[None, Body]:
        common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "as-served"}
        return None, common | {"choices": choices} | ({"usage": usage} if include_usage else {})

    events: list[tuple[str | None, Body | str]] = [
        chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    ]
    events += [chunk([{"index": 0, "delta": piece, "finish_reason": None}]) for piece in pieces]
    if finish_reason is not None:
        events.append(chunk([{"index": 0, "delta": {}, "finish_reason": finish_reason}]))
        if include_usage and usage is not None:
            events.append(chunk([], usage))
        events.append((None, "[DONE]"))
    return events


def openai_stream(
    pieces: tuple[str, ...] = ("Hello", " to", " you"),
    finish_reason: str | None = "stop",
    usage: Body | None = OPENAI_USAGE,
    deltas: list[Body] | None = None,
    error: Body | None = None,
    **reply: Any,
) -> Callable[[Body], Reply]:
    def answer(request: Body) -> Reply:
        include_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        chosen = [{"content": piece} for piece in pieces] if deltas is None else deltas
        events = openai_chunks(chosen, None if error else finish_reason, usage, include_usage)
        if error is not None:
            events.append((None, {"error": error}))
        return Reply(events=events, **reply)

    return answer


IMMEDIATELY = {"retry_after_ms": "1"}


def openai_error(status: int, code: str | None = None, message: str = "no", **headers: str) -> Reply:
    error = {"message": message, "type": "some_error", "param": None, "code": code}
    return Reply(status, {"error": error}, {name.replace("_", "-"): value for name, value in headers.items()})


# Anthropic's messages

ANTHROPIC_USAGE: Body = {
    "input_tokens": 20,
    "cache_read_input_tokens": 80,
    "cache_creation_input_tokens": 40,
    "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
    "output_tokens": 30,
}


def anthropic_whole(stop_reason: str = "end_turn", usage: Body = ANTHROPIC_USAGE, **reply: Any) -> Reply:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "as-served",
        "content": [{"type": "text", "text": "Hello to you"}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }
    return Reply(body=message, **reply)


def anthropic_stream(
    pieces: tuple[str, ...] = ("Hello", " to", " you"),
    stop_reason: str | None = "end_turn",
    usage: Body = ANTHROPIC_USAGE,
    error: Body | None = None,
    **reply: Any,
) -> Reply:
    """As Anthropic streams: input in message_start with a first guess at the output, the output in message_delta."""
    started: Body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "as-served",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage | {"output_tokens": 1},
    }
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    datas: list[Body] = [{"type": "message_start", "message": started}, block, {"type": "ping"}]
    datas += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces
    ]
    if error is not None:
        datas.append({"type": "error", "error": error})
    elif stop_reason is not None:
        delta = {"stop_reason": stop_reason, "stop_sequence": None}
        datas += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}},
            {"type": "message_stop"},
        ]
    return Reply(events=[(data["type"], data) for data in datas], **reply)


def anthropic_error(status: int, kind: str, message: str = "no", **headers: str) -> Reply:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(240):
        while not true():  # noqa: ASYNC110  what is waited for is on another thread
            await asyncio.sleep(0.01)
