"""HTTP requests that bypass proxies, whatever `http_proxy` is."""

from __future__ import annotations

import ssl
import urllib.request
from http.client import HTTPException


def get(url: str, timeout: float) -> str:
    """The response body of a GET; `timeout` in seconds.

    Raises:
        OSError: there is no response, or none of HTTP (`urllib.error.HTTPError`: its status is an error).
    """
    return request(urllib.request.Request(url), timeout)[1]  # noqa: S310  our own


def request(request: urllib.request.Request, timeout: float, trusted: ssl.SSLContext | None = None) -> tuple[str, str]:
    """The URL that responded, after redirects, and the body; as `get`. `trusted`: the certificates to accept."""
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            return response.geturl(), response.read().decode(errors="replace")
    except HTTPException as error:  # a server of another protocol, or a truncated response
        raise OSError(f"no HTTP answer: {str(error) or type(error).__name__}") from None
