# SPDX-License-Identifier: Apache-2.0
"""Classify an exception that leaves the application: did the client leave, what failed, which status results."""

from asyncio import CancelledError, current_task
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send
from starlette.websockets import WebSocketDisconnect

_CLIENT_LEFT = (ClientDisconnect, GeneratorExit)
_END = (WebSocketDisconnect, RuntimeError, OSError, CancelledError)
_BODY_LIMIT = "starlette.middleware.body_limit"  # whose two exceptions are private


def client_left(error: BaseException, send: Send) -> bool:
    """Whether the only reason is a client that left or a cancelled request. `send`: the server's."""

    def left(error: BaseException) -> bool:
        if isinstance(error, OSError):
            return _passed(error, send)
        return isinstance(error, _CLIENT_LEFT) or cancelled(error)

    return _all(_reason(error), left)


def cancelled(error: BaseException) -> bool:
    """Whether the request itself was cancelled, as servers do when the client leaves or they shut down.

    Otherwise the application awaited a task or future that was cancelled, and failed: the client gets a 500.
    """
    if not isinstance(error, CancelledError):
        return False
    try:
        task = current_task()
    except RuntimeError:  # not asyncio
        return True
    return task is None or task.cancelling() > 0


def failed(error: BaseException) -> str | None:
    """The class name of what failed; of a group only if it contains several classes; None for a mere cancellation."""
    if isinstance(error, BaseExceptionGroup):
        inside = error.subgroup(Exception)
        names = {failed(inner) for inner in inside.exceptions} if inside is not None else {None}
        return names.pop() if len(names) == 1 else type(error).__name__
    error = _reason(error)
    waited = isinstance(error, CancelledError) and not cancelled(error)
    return type(error).__name__ if waited or isinstance(error, Exception) else None


def after_close(error: BaseException) -> bool:
    """Whether receive() and send() of a closed WebSocket raise this, or tasks that its handler then cancels.

    Handlers usually end in this way.
    """
    return _all(_reason(error), lambda inner: isinstance(inner, _END))


def answered_outside(error: BaseException, receive: Receive, send: Send) -> int | None:
    """The status with which a layer around the middleware answers an exception of its own, None for all others.

    FastAPI's `max_body_size` ends a request with an exception from receive() or send(). One from send() is answered
    only by the layer that raised it, because Starlette considers the response started. An HTTPException that the
    application raises below the middleware is not among these: nothing handles it there, so it becomes a 500. So does
    a group with other exceptions than the body limit's.
    """
    if _all(_reason(error), lambda inner: type(inner).__module__ == _BODY_LIMIT):  # one of the two has no status_code
        return 413
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    ours = _passed(error, send) or (isinstance(error, HTTPException) and _passed(error, receive))
    return status if ours else None


def _reason(error: BaseException) -> BaseException:
    """The original exception: once a response has started, Starlette raises a RuntimeError in place of any other."""
    if type(error) is RuntimeError and error.__cause__ is not None and "response already started" in str(error):
        return _reason(error.__cause__)
    return error


def _all(error: BaseException, what: Callable[[BaseException], bool]) -> bool:
    """Whether a condition holds for an exception, or for each one in a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(_all(inner, what) for inner in error.exceptions)
    return what(error)


def _passed(error: BaseException, function: Callable[..., Any]) -> bool:
    """Whether an exception passed through a function, here one of the server's."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            return True
        traceback = traceback.tb_next
    return False
