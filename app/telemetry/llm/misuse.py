# SPDX-License-Identifier: Apache-2.0
"""Errors for objects that cannot be measured; the messages say what to pass instead."""

from __future__ import annotations

import inspect
from typing import Any


class NotAnAnswerError(TypeError):
    """`record` or `stream` was called with an object that contains no response."""


def answer_of(response: Any) -> Any:
    """What `record` reads: the response itself, or the parsed content of an SDK's raw response.

    Raises:
        NotAnAnswerError: it is a stream, an awaitable or a context manager.
    """
    if isinstance(response, dict) or hasattr(type(response), "__pydantic_fields__"):
        return response
    if inspect.isawaitable(response):
        _close(response)
        raise NotAnAnswerError("call.record(): await the request, and record what it returns")
    if _is_raw(response):
        parsed = response.parse()
        if inspect.isawaitable(parsed):
            _close(parsed)
            raise NotAnAnswerError("call.record(): record `await response.parse()`")
        if _is_stream(parsed):
            raise NotAnAnswerError("call.record(): this response is a stream; use call.stream(response.parse())")
        return parsed
    if _is_stream(response):
        raise NotAnAnswerError("call.record(): this is a stream; iterate over call.stream(...) instead")
    if _is_unopened(response):
        raise NotAnAnswerError("call.record(): open it first (`with ... as response`), and record what that returns")
    return response


def check_stream(source: Any) -> None:
    """Check that `stream` can iterate over `source`.

    Raises:
        NotAnAnswerError: it is a complete response, an awaitable or a context manager.
    """
    if inspect.isawaitable(source):
        _close(source)
        raise NotAnAnswerError("call.stream(): await the request, and pass what it returns")
    if _is_raw(source):
        raise NotAnAnswerError("call.stream(): pass `response.parse()` (of an asynchronous client: await it)")
    if isinstance(source, dict) or hasattr(type(source), "__pydantic_fields__"):
        raise NotAnAnswerError("call.stream(): this is a complete response; use call.record(...)")
    if not hasattr(source, "__aiter__") and not hasattr(source, "__iter__"):
        raise NotAnAnswerError("call.stream(): open it first (`with ... as stream`), and pass the stream")


def refuse_text(first: bool) -> None:
    """Reject a stream of text (`text_stream`, lines of HTTP), which has neither usage nor a finish reason.

    Raises:
        NotAnAnswerError: at the first item; a later text is a mistake of the provider and is ignored.
    """
    if first:
        raise NotAnAnswerError(
            "call.stream(): a stream of text has no usage; pass the stream of events, not its text_stream or lines"
        )


def _is_raw(thing: Any) -> bool:
    return hasattr(thing, "http_response") and callable(getattr(thing, "parse", None))


def _is_stream(thing: Any) -> bool:
    return hasattr(thing, "__next__") or hasattr(thing, "__anext__")


def _is_unopened(thing: Any) -> bool:
    return (hasattr(thing, "__enter__") or hasattr(thing, "__aenter__")) and "Manager" in type(thing).__name__


def _close(awaitable: Any) -> None:
    """Close a coroutine, which would warn that it was never awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
