"""Requests that go straight to a server, such as ours on this machine: through no proxy, whatever `http_proxy` says."""

from __future__ import annotations

import ssl
import urllib.request
from base64 import b64encode
from http.client import HTTPResponse


def get(url: str, timeout: float) -> HTTPResponse:
    """The answer to a GET; `timeout` in seconds.

    Raises:
        OSError: there is no answer (`urllib.error.HTTPError`: it is an error).
    """
    return request(urllib.request.Request(url), timeout)  # noqa: S310  our own


def request(request: urllib.request.Request, timeout: float, trusted: ssl.SSLContext | None = None) -> HTTPResponse:
    """As `get`; `trusted`: whose certificates are."""
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    answer: HTTPResponse = urllib.request.build_opener(*handlers).open(request, timeout=timeout)
    return answer


def basic(user: str, password: str) -> str:
    """The value of the header `Authorization` for basic authentication."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
