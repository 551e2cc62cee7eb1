"""Error responses as JSON, and their entries in the OpenAPI document."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.api.schemas import InvalidRequest, Problem
from app.db.errors import one_line
from app.middleware import REQUEST_ID_HEADER, request_id

logger = logging.getLogger("app.errors")

Responses = dict[int | str, dict[str, Any]]

_DESCRIPTIONS = {
    400: "The body is not valid JSON",
    401: "The API key is missing or not valid",
    404: "Not found",
    409: "Not possible in this configuration",
    408: "The request body did not arrive in time",
    413: "The request body is too large",
    429: "Too many requests from this client",
    500: "Internal error",
    502: "The LLM provider failed",
    503: "The database, the LLM provider or the service has no capacity; try again later",
    504: "The LLM provider did not answer in time",
}


def responses(*codes: int) -> Responses:
    """OpenAPI entries for error responses; 422 is always among them."""
    invalid: Responses = {422: {"model": InvalidRequest, "description": "The request is not valid"}}
    return invalid | {code: {"model": Problem, "description": _DESCRIPTIONS[code]} for code in codes}


BODY_ERRORS = (400, 408, 413)
MAX_ERRORS = 20  # in one response
MAX_NAME = 100  # characters of a key that it repeats
MAX_DEPTH = 8


def add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        """Name the invalid fields without echoing the input: it may be a secret, or not valid in JSON (NaN)."""
        fields: list[dict[str, Any]] = []
        unknown = 0
        for each in error.errors():
            if each["type"] == "extra_forbidden":  # one for all of them
                unknown += 1
                if unknown > 1:
                    continue
            if len(fields) < MAX_ERRORS:
                fields.append({"loc": _short(each["loc"]), "msg": each["msg"], "type": each["type"]})
        return JSONResponse({"detail": fields}, 422)

    @app.exception_handler(405)
    async def method_not_allowed(request: Request, error: HTTPException) -> JSONResponse:
        """List all methods of the path in Allow; the framework lists those of one route (RFC 9110, section 15.5.6)."""
        allowed = {method.strip() for method in (error.headers or {}).get("Allow", "").split(",") if method}
        for path, operations in app.openapi()["paths"].items():
            if compile_path(path)[0].match(request.scope["path"]):
                allowed |= {method.upper() for method in operations}
        return JSONResponse({"detail": error.detail}, 405, headers={"Allow": ", ".join(sorted(allowed))})

    @app.exception_handler(PoolTimeoutError)
    async def pool_exhausted(request: Request, error: PoolTimeoutError) -> JSONResponse:
        return _database_unavailable(error)

    @app.exception_handler(DBAPIError)
    async def database_error(request: Request, error: DBAPIError) -> JSONResponse:
        # Operational: refused, lost, shutting down, statement timeout, deadlock. Everything else is a bug in our SQL.
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
            return _database_unavailable(error)
        raise error

    @app.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> JSONResponse:
        """For unhandled exceptions. Starlette raises them again, so that the server logs the traceback."""
        # Sent from outside of all middlewares, so RequestLogMiddleware cannot add the header.
        return JSONResponse({"detail": "Internal Server Error"}, 500, headers={REQUEST_ID_HEADER: request_id()})


def _short(loc: Sequence[int | str]) -> list[int | str]:
    """The location of the error. The name of an unknown key comes from the client and is shortened."""
    return [part if isinstance(part, int) else part[:MAX_NAME] for part in loc[:MAX_DEPTH]]


def _database_unavailable(error: Exception) -> JSONResponse:
    # No traceback: an outage would log one for each request.
    logger.error("The database is not available: %s", one_line(error))
    return JSONResponse({"detail": "The database is not available"}, 503, headers={"Retry-After": "1"})
