"""Requests to our own servers on this machine: never through a proxy, whatever `http_proxy` says."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout: float) -> HTTPResponse:
    """Raises OSError (`urllib.error.HTTPError` for an answer that is an error)."""
    return request(urllib.request.Request(url), timeout)  # noqa: S310  our own


def request(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    answer: HTTPResponse = _DIRECT.open(request, timeout=timeout)
    return answer
