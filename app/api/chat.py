"""POST /chat: ask the LLM, streamed or not, and store question and answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Literal, TypeVar, cast

import anyio
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect
from starlette.types import Send

from app import llm
from app.api.conversations import find_conversation, find_messages
from app.api.dependencies import CurrentUser, Session
from app.api.errors import BODY_ERRORS, Responses, responses
from app.api.schemas import ChatAnswer, ChatRequest, Usage
from app.db import models
from app.db.engine import Sessions, named
from app.db.errors import one_line
from app.middleware import CLIENT_GONE

logger = logging.getLogger("app.chat")

HISTORY = 20  # earlier messages of the conversation that are sent to the model, fewer if they are long
_STORE_TIMEOUT = 10  # seconds to store an answer
_storing: set[asyncio.Task[None]] = set()  # the event loop itself does not keep its tasks

# Kinds of app.llm.LLMError that the client can fix, or that are temporary; all others are failures of the provider.
_STATUS = {
    "bad_request": 400,
    "content_filter": 400,
    "context_length": 400,
    "rate_limit": 503,
    "overloaded": 503,
    "timeout": 504,
}

_ANSWERS: Responses = {
    200: {
        "description": "The answer: JSON, or server-sent events if `stream` is true: one `start` "
        "(conversation_id, model, provider), `delta` (text) for each piece, then `done` (usage, finish_reason, "
        "stored: false if the answer could not be kept) or, if the provider fails on the way, `error` (detail).",
        "content": {
            "text/event-stream": {
                "schema": {  # of each event
                    "type": "object",
                    "required": ["event", "data"],
                    "properties": {
                        "event": {"enum": ["start", "delta", "done", "error"]},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                }
            }
        },
    }
}

T = TypeVar("T")

router = APIRouter(prefix="/chat", tags=["chat"])


@router.post("", response_model=ChatAnswer, responses=_ANSWERS | responses(401, 404, *BODY_ERRORS, 502, 503, 504))
async def chat(question: ChatRequest, request: Request, user: CurrentUser, session: Session) -> ChatAnswer | Response:
    """Ask the LLM. Question and answer are stored in a conversation, even a partial answer that broke off."""
    service: llm.LLMService = request.app.state.llm
    if question.model is not None and question.model not in service.models:
        # Otherwise a client could choose the most expensive model at the operator's cost.
        raise HTTPException(404, f"Unknown model; available models: {', '.join(sorted(service.models))}")
    conversation_id, messages = await _store_question(session, user, question)
    # Gives the connection back to the pool: a model takes seconds to answer.
    await session.commit()
    try:
        if question.stream:
            return await _stream(request, conversation_id, messages, question.model)
        answer = await _while_connected(request, service.complete(messages, question.model))
    except llm.LLMError as error:
        raise _http_error(error) from error
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)  # the client is gone
    sessions: Sessions = request.app.state.sessions
    stored = await _store_answer(sessions, conversation_id, answer.text, answer.model, answer.provider)
    return ChatAnswer(
        conversation_id=conversation_id,
        message=answer.text,
        model=answer.model,
        provider=answer.provider,
        usage=_usage(answer.usage),
        stored=stored,
    )


class OpenStreams:
    """The answers that are being streamed. At shutdown, each is stored before the database is closed."""

    def __init__(self) -> None:
        self._open = 0
        self._none_open = asyncio.Event()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self._open += 1
        self._none_open.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._none_open.set()

    async def stored(self) -> None:
        """Returns when all are stored, or after a bounded time."""
        if self._open:
            await asyncio.wait({asyncio.create_task(self._none_open.wait())}, timeout=_STORE_TIMEOUT)


async def _while_connected(request: Request, answer: Awaitable[T]) -> T:
    """The result of `answer`. If the client disconnects first, the call is cancelled, so that the rest costs nothing.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    with anyio.CancelScope() as scope:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            scope.cancel()

        watching = asyncio.create_task(watch())
        try:
            return await answer
        finally:
            watching.cancel()
    raise ClientDisconnect


async def _stream(
    request: Request, conversation_id: int, messages: list[llm.Message], model: str | None
) -> StreamingResponse:
    """Wait for the first piece, so that an immediate failure of the provider gets a proper status code, then stream."""
    service: llm.LLMService = request.app.state.llm
    sessions: Sessions = request.app.state.sessions
    open_streams: OpenStreams = request.app.state.open_streams
    model_name, provider = model or service.default_model, service.provider.name
    chunks = service.stream(messages, model)
    first = await _while_connected(request, anext(chunks))

    async def events() -> AsyncGenerator[bytes]:
        text = ""
        complete = stored = False
        chunk = first
        with open_streams.one_more():
            try:
                yield _event("start", conversation_id=conversation_id, model=model_name, provider=provider)
                while chunk.finish_reason is None:
                    text += chunk.text
                    yield _event("delta", text=chunk.text)
                    chunk = await anext(chunks)
                complete = True
            except llm.LLMError as error:
                yield _event("error", detail=str(error))
            except Exception:  # a bug in this service: the client gets an event, the middleware counts it
                yield _event("error", detail="Internal Server Error")
                raise
            finally:
                # When the client has left, every await here would be cancelled again: hence the shield.
                with anyio.move_on_after(_STORE_TIMEOUT + 1, shield=True):
                    await chunks.aclose()
                    if text:
                        stored = await _store_answer(sessions, conversation_id, text, model_name, provider, complete)
        if complete:
            usage = _usage(chunk.usage)
            yield _event(
                "done", usage=usage and usage.model_dump(), finish_reason=chunk.finish_reason, stored=stored or not text
            )

    return _EventStream(events())


class _EventStream(StreamingResponse):
    """Server-sent events; the generator is closed immediately when the client leaves, wherever it is."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # otherwise nginx buffers the stream
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


def _event(name: Literal["start", "delta", "done", "error"], **data: object) -> bytes:
    # json.dumps escapes line breaks and everything that is not ASCII: one event is always two lines.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def _store_question(
    session: AsyncSession, user: models.User, question: ChatRequest
) -> tuple[int, list[llm.Message]]:
    """Store the message, in a new conversation if none is named; return the conversation and what to send the model."""
    history: list[llm.Message] = []
    if question.conversation_id is None:
        insertion = insert(models.Conversation).values(user_id=user.id, title=question.message[:80])
        conversation_id = (
            await session.execute(
                insertion.returning(models.Conversation.id), execution_options=named("conversation_create")
            )
        ).scalar_one()
    else:
        conversation_id = (await find_conversation(session, question.conversation_id, user)).id
        rows, _ = await find_messages(session, conversation_id, HISTORY, newest_first=True)
        history = [llm.Message(cast(Literal["user", "assistant"], row.role), row.content) for row in reversed(rows)]
    await _store(session, conversation_id=conversation_id, role="user", content=question.message)
    return conversation_id, [*history, llm.Message("user", question.message)]


async def _store_answer(
    sessions: Sessions, conversation_id: int, text: str, model: str, provider: str, complete: bool = True
) -> bool:
    """Store the answer, in a bounded time. False, with a log line, if that fails: the client still gets the answer."""

    async def store() -> None:
        async with sessions.begin() as session:
            await _store(
                session,
                conversation_id=conversation_id,
                role="assistant",
                # PostgreSQL accepts neither NUL nor lone surrogates, which a model may write.
                content=text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8"),
                complete=complete,
                model=model,
                provider=provider,
            )

    # A separate task: if the server hangs, so does the rollback after a cancellation, which must not be awaited.
    storing = asyncio.create_task(store())
    _storing.add(storing)
    storing.add_done_callback(_ended)
    await asyncio.wait({storing}, timeout=_STORE_TIMEOUT)
    try:
        if not storing.done():
            storing.cancel()
            raise TimeoutError
        storing.result()
    except (SQLAlchemyError, OSError) as error:  # a TimeoutError is an OSError
        reason = one_line(error) if str(error) else f"not within {_STORE_TIMEOUT} s"
        logger.error("An answer in conversation %d was not stored: %s", conversation_id, reason)
        return False
    except Exception:  # a bug in this service: the client still gets the answer
        logger.exception("An answer in conversation %d was not stored", conversation_id)
        return False
    return True


def _ended(storing: asyncio.Task[None]) -> None:
    _storing.discard(storing)
    if not storing.cancelled():
        storing.exception()  # retrieved, or asyncio would report it a second time


async def _store(session: AsyncSession, **values: Any) -> None:
    await session.execute(insert(models.Message).values(**values), execution_options=named("message_create"))


def _usage(usage: llm.Usage | None) -> Usage | None:
    return Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens) if usage else None


def _http_error(error: llm.LLMError) -> HTTPException:
    status = _STATUS.get(error.kind, 502)
    headers = {"Retry-After": "5"} if status == 503 else None
    return HTTPException(status, f"No answer: {error}", headers)
