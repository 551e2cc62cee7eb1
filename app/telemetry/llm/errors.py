# SPDX-License-Identifier: Apache-2.0
"""How calls fail: one of ERROR_TYPES for an exception, an HTTP status or a code in an answer, by its shape."""

from __future__ import annotations

from .metrics import ERROR_TYPES, OTHER

ERROR_CODES = {kind: kind for kind in ERROR_TYPES} | {
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "insufficient_quota": "rate_limit",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "auth",
    "invalid_api_key": "auth",
    "context_length_exceeded": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
    "server_error": "server",
    "api_error": "server",
}
_ERROR_CLASSES = {
    "APITimeoutError": "timeout",
    "TimeoutException": "timeout",
    "APIConnectionError": "connection",
    "TransportError": "connection",
    "ContentFilterFinishReasonError": "content_filter",
}
_ERROR_STATUSES = {
    401: "auth",
    402: "auth",
    403: "auth",
    408: "timeout",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_CONTEXT_LENGTH_WORDS = ("context length", "context window", "prompt is too long", "maximum context")


def error_type(error: BaseException | None) -> str:
    """One of ERROR_TYPES for an exception of an SDK, of its HTTP client or of Python, told by its shape."""
    for code in (getattr(error, "code", None), getattr(error, "type", None)):
        if isinstance(code, str) and code in ERROR_CODES:
            return ERROR_CODES[code]
    status = error_status(error)
    if status is not None:
        if status in (400, 413, 422) and any(words in str(error).lower() for words in _CONTEXT_LENGTH_WORDS):
            return "context_length"
        return status_error_type(status)
    if isinstance(error, TimeoutError):
        return "timeout"
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _ERROR_CLASSES:
            return _ERROR_CLASSES[ancestor.__name__]
    return "connection" if isinstance(error, OSError) else OTHER


def error_status(error: BaseException | str | None) -> int | None:
    """The HTTP status that refused the request, if one did."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def status_error_type(status: int) -> str:
    return _ERROR_STATUSES.get(status, "bad_request" if status < 500 else "server")
