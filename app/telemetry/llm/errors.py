# SPDX-License-Identifier: Apache-2.0
"""The type of a failure, one of ERROR_TYPES: of an exception, an HTTP status or an error inside a response.

error_type(openai.RateLimitError(...))                   -> "rate_limit"
error_in_answer({"code": "502", "message": "Bad gateway"}) -> "server"
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from .metrics import ERROR_TYPES, OTHER
from .shapes import get, items

# Codes and types of providers and gateways, in lower case without "_", "-", "." and spaces: `rate_limit_error` of
# Anthropic, `RESOURCE_EXHAUSTED` of Google, `ThrottlingException` of Bedrock, `RateLimitError` of vLLM.
_CODES = {kind.replace("_", ""): kind for kind in ERROR_TYPES if kind != OTHER} | {
    "ratelimiterror": "rate_limit",
    "ratelimitexceeded": "rate_limit",
    "ratelimitreached": "rate_limit",
    "ratelimitreachederror": "rate_limit",
    "insufficientquota": "rate_limit",
    "resourceexhausted": "rate_limit",
    "throttlingexception": "rate_limit",
    "throttling": "rate_limit",
    "toomanyrequests": "rate_limit",
    "toomanyrequestsexception": "rate_limit",
    "servicequotaexceededexception": "rate_limit",
    "quotaexceeded": "rate_limit",
    "exceededcurrentquotaerror": "rate_limit",
    "authenticationerror": "auth",
    "permissionerror": "auth",
    "permissiondenied": "auth",
    "permissiondeniederror": "auth",
    "billingerror": "auth",
    "invalidapikey": "auth",
    "invalidauthenticationerror": "auth",
    "incorrectapikeyerror": "auth",
    "unauthorized": "auth",
    "unauthenticated": "auth",
    "forbidden": "auth",
    "accessdeniedexception": "auth",
    "expiredtokenexception": "auth",
    "insufficientbalance": "auth",
    "validation": "bad_request",
    "badrequesterror": "bad_request",
    "invalidrequesterror": "bad_request",
    "invalidrequest": "bad_request",
    "invalidargument": "bad_request",
    "validationexception": "bad_request",
    "notfounderror": "bad_request",
    "modelnotfound": "bad_request",
    "contextlengthexceeded": "context_length",
    "contextwindowexceedederror": "context_length",
    "exceedcontextsizeerror": "context_length",
    "requesttoolarge": "context_length",
    "contentfilter": "content_filter",
    "contentfiltererror": "content_filter",
    "contentpolicyviolation": "content_filter",
    "contentpolicyviolationerror": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
    "datainspectionfailed": "content_filter",
    "overloadederror": "overloaded",
    "engineoverloadederror": "overloaded",
    "serverisoverloaded": "overloaded",
    "serviceunavailable": "overloaded",
    "serviceunavailableerror": "overloaded",
    "serviceunavailableexception": "overloaded",
    "modelnotreadyexception": "overloaded",
    "unavailable": "overloaded",
    "timeouterror": "timeout",
    "requesttimeout": "timeout",
    "deadlineexceeded": "timeout",
    "modeltimeoutexception": "timeout",
    "gatewaytimeout": "timeout",
    "servererror": "server",
    "apierror": "server",
    "internal": "server",
    "internalerror": "server",
    "internalservererror": "server",
    "internalserverexception": "server",
    "modelerrorexception": "server",
    "modelstreamerrorexception": "server",
    "providererror": "server",
    "providerunavailable": "server",
    "upstreamerror": "server",
    "badgateway": "server",
}
_CLASSES = {
    "APITimeoutError": "timeout",
    "TimeoutException": "timeout",
    "ReadTimeoutError": "timeout",
    "APIConnectionError": "connection",
    "TransportError": "connection",
    "ClientConnectionError": "connection",  # aiohttp, which Google's SDK uses if it is installed
    "ClientPayloadError": "connection",
    "ContentFilterFinishReasonError": "content_filter",
    "JSONDecodeError": "server",
    "UnicodeDecodeError": "server",
    "APIResponseValidationError": "server",
    "RemoteProtocolError": "connection",
}
_STATUSES = {
    401: "auth",
    402: "auth",
    403: "auth",
    408: "timeout",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_CONTEXT_LENGTH_WORDS = ("context length", "context window", "prompt is too long", "maximum context", "context size")
# Bugs in the code around the call, not failures of the provider.
_PROGRAMMING_ERRORS = (TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError, ArithmeticError)


def error_type(error: BaseException | None) -> str:
    """One of ERROR_TYPES for an exception of an SDK, its HTTP client or Python, by its attributes and class names.

    If it has none itself, that of its cause (`raise ... from`) or, for a group, of its members is used.
    """
    for cause in _causes(error):
        kind = _own_type(cause)
        if kind != OTHER:
            return kind
    return OTHER


def _own_type(error: BaseException) -> str:
    for code in (getattr(error, "code", None), getattr(error, "type", None)):
        if (kind := _by_name(code)) is not None:
            return "context_length" if kind == "bad_request" and _mentions_context(str(error)) else kind
    status = error_status(error)
    if status is not None:
        return _status_or_context(status, error)
    if isinstance(error, TimeoutError):
        return "timeout"
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _CLASSES:
            return _CLASSES[ancestor.__name__]
        if ancestor.__module__ != "builtins" and (kind := _by_name(ancestor.__name__)) is not None:
            return kind
    if isinstance(error, OSError):
        return "connection"
    # An SDK's exception for an error inside a response has that error as its body; Ollama's client has it as `error`.
    if (body := get(error, "body")) is not None:
        return error_in_answer(body)
    if isinstance(text := get(error, "error"), str):
        return error_in_answer(text)
    return OTHER


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error, or the members of a group, and what they were raised from."""
    causes: list[BaseException] = []
    rest = [error]
    while rest and len(causes) < 10:
        cause = rest.pop(0)
        if cause is not None and cause not in causes:
            causes.append(cause)
            rest += [*getattr(cause, "exceptions", ())[:3], cause.__cause__]
    return causes


def error_status(error: BaseException | None) -> int | None:
    """The HTTP status with which the request was rejected, None if there is none."""
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "status_code", None),
        getattr(error, "status", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
        get(get(response, "ResponseMetadata"), "HTTPStatusCode") if isinstance(response, dict) else None,
    ):
        if isinstance(status, str) and status.isdecimal() and len(status) == 3:
            status = int(status)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def status_error_type(status: int) -> str:
    """One of ERROR_TYPES for an HTTP status."""
    return _STATUSES.get(status, "bad_request" if status < 500 else "server")


def _status_or_context(status: int, error: object) -> str:
    if status in (400, 413, 422) and _mentions_context(str(error)):
        return "context_length"
    return status_error_type(status)


def _by_name(code: Any) -> str | None:
    if not isinstance(code, str) or len(code) > 64:
        return None
    return _CODES.get(re.sub(r"[_\-. ]", "", code).lower())


def error_in_answer(error: Any) -> str:
    """One of ERROR_TYPES for an error that a response with HTTP status 200 contains or consists of.

    Names take precedence over numbers, which are less precise: `{"code": 400, "type": "context_length_exceeded"}`.
    """
    if isinstance(error, str):
        return _by_name(error) or ("context_length" if _mentions_context(error) else "server")
    if first := items(error):
        return error_in_answer(first[0])
    inner = get(error, "error")
    details = (error, inner, get(error, "metadata"), get(inner, "metadata"))
    names = ("code", "type", "status", "error_type")
    codes = [code for detail in details for name in names if (code := get(detail, name)) is not None]
    for code in codes:
        if code != "error" and (kind := _by_name(code)) not in (None, "bad_request", "server"):
            return str(kind)
    if _mentions_context(f"{get(error, 'message')} {get(inner, 'message')}"):
        return "context_length"
    for code in codes:
        if isinstance(code, str) and code.isdecimal() and len(code) == 3:
            code = int(code)
        if isinstance(code, int) and 400 <= code < 600:
            return status_error_type(code)
    return next((kind for code in codes if (kind := _by_name(code)) is not None), "server")


def _mentions_context(message: str) -> bool:
    return any(words in message.lower() for words in _CONTEXT_LENGTH_WORDS)


def is_cancellation(error: BaseException | str | None) -> bool:
    """True if the caller stopped waiting."""
    return isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit)


def is_callers_own(error: BaseException | None) -> bool:
    """True for an exception of the code around the call, or of an SDK that rejects a request before sending it."""
    own = type(error).__module__ == "builtins" and isinstance(error, _PROGRAMMING_ERRORS)
    return own and error_type(error) == OTHER


def completion_in(error: BaseException | None) -> Any:
    """The response inside an exception: OpenAI's LengthFinishReasonError, Instructor's errors."""
    for cause in _causes(error):
        for name in ("completion", "last_completion"):
            if (completion := get(cause, name)) is not None and not isinstance(completion, str):
                return completion
    return None
