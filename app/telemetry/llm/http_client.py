# SPDX-License-Identifier: Apache-2.0
"""Retries and rate limits, measured at the HTTP client of an SDK."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from .call import Call, current_call
from .errors import error_type, status_error_type
from .metrics import RETRIES

Client = TypeVar("Client")

_RATE_LIMIT_HEADERS = (
    ("x-ratelimit-remaining-requests", "requests"),
    ("x-ratelimit-remaining-tokens", "tokens"),
    ("anthropic-ratelimit-requests-remaining", "requests"),
    ("anthropic-ratelimit-tokens-remaining", "tokens"),
)


def watch_http(client: Client) -> Client:
    """Measure an httpx2 or httpx client, sync or async, and return it, to be passed to an SDK as its `http_client`.

    Counts the SDK's own retries during a `track_call`, and reads the remaining rate limit from response headers.
    """
    watched: Any = client
    send = watched.send

    async def send_async(request: Any, **options: Any) -> Any:
        call = _attempt()
        try:
            response = await send(request, **options)
        except Exception as error:
            _attempt_failed(call, error)
            raise
        _attempt_answered(call, response)
        return response

    def send_sync(request: Any, **options: Any) -> Any:
        call = _attempt()
        try:
            response = send(request, **options)
        except Exception as error:
            _attempt_failed(call, error)
            raise
        _attempt_answered(call, response)
        return response

    watched.send = send_async if inspect.iscoroutinefunction(send) else send_sync
    return client


def _attempt() -> Call | None:
    call = current_call.get()
    if call is None or call.outcome is not None:
        return None
    if call._attempt_failure is not None:
        call._series.of(RETRIES, call._attempt_failure).inc()
        call._attempt_failure = None
    return call


def _attempt_failed(call: Call | None, error: Exception) -> None:
    if call is not None:
        call._attempt_failure = error_type(error)


def _attempt_answered(call: Call | None, response: Any) -> None:
    if call is None:
        return
    if response.status_code >= 400:
        call._attempt_failure = status_error_type(response.status_code)
    for header, resource in _RATE_LIMIT_HEADERS:
        value = response.headers.get(header)
        if value is not None and value.isdecimal():
            call.rate_limit(resource, int(value))
