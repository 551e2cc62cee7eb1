"""Requests that go straight to a server, such as ours on this machine: through no proxy, whatever `http_proxy` says."""

from __future__ import annotations

import ssl
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from http.client import HTTPException


@dataclass(frozen=True)
class Answer:
    """The text of an answer, and the address that it came from."""

    url: str
    text: str


def get(url: str, timeout: float) -> str:
    """The text that a GET is answered with; `timeout` in seconds.

    Raises:
        OSError: there is no answer, or none of HTTP (`urllib.error.HTTPError`: it is an error).
    """
    return request(urllib.request.Request(url), timeout).text  # noqa: S310  our own


def request(request: urllib.request.Request, timeout: float, trusted: ssl.SSLContext | None = None) -> Answer:
    """As `get`; `trusted`: whose certificates are."""
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            return Answer(answer.geturl(), answer.read().decode(errors="replace"))
    except HTTPException as error:  # a server of another protocol, or one that ends in the middle
        raise OSError(f"no HTTP answer: {str(error) or type(error).__name__}") from None


def basic(user: str, password: str) -> str:
    """The value of the header `Authorization` for basic authentication."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
