"""Errors as JSON: what clients may see, and which responses the OpenAPI document lists."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.api.schemas import InvalidRequest, Problem
from app.middleware import REQUEST_ID_HEADER, request_id

logger = logging.getLogger("app.errors")

Responses = dict[int | str, dict[str, Any]]

_DESCRIPTIONS = {
    400: "The body is not readable as JSON",
    401: "No API key, or not a valid one",
    403: "The token may not do this",
    404: "Not found",
    408: "The request was not sent in time",
    413: "The request body is too large",
    500: "An error inside the service",
    502: "The LLM provider failed",
    503: "The database, the LLM provider or the service has no capacity; try again later",
    504: "The LLM provider did not answer in time",
}


def responses(*codes: int) -> Responses:
    """OpenAPI entries for error responses; 422 is always among them."""
    return {422: {"model": InvalidRequest, "description": "The request is not valid"}} | {
        code: {"model": Problem, "description": _DESCRIPTIONS[code]} for code in codes
    }


BODY_ERRORS = (400, 408, 413)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(PoolTimeoutError, _database_unavailable)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(Exception, _internal_error)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    """Says what is wrong, but does not send the input back: it may hold a secret or what JSON cannot carry (NaN)."""
    assert isinstance(error, RequestValidationError)
    fields = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
    return JSONResponse({"detail": fields}, 422)


async def _database_unavailable(request: Request, error: Exception) -> JSONResponse:
    # No traceback: an outage would write one for each request.
    logger.error("The database is not available: %s", " ".join(str(getattr(error, "orig", error)).split()))
    return JSONResponse({"detail": "The database is not available"}, 503, headers={"Retry-After": "1"})


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    # Operational: connection refused or lost, server shutting down, statement timeout, deadlock; not a fault in the SQL.
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        return await _database_unavailable(request, error)
    raise error


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    """The last resort. Starlette raises the error again, so that the server logs its traceback."""
    # Sent from outside all middlewares, which therefore cannot add the header.
    return JSONResponse({"detail": "Internal Server Error"}, 500, headers={REQUEST_ID_HEADER: request_id()})
