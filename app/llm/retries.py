"""A bound for the time that the SDKs sleep between two attempts.

A provider may request any wait in Retry-After. Anthropic's SDK waits that long, regardless of timeouts; OpenAI's waits
up to 120 s. No client waits that long, so the request fails with the provider's error instead.
"""

from __future__ import annotations

import email.utils
import math
import time
from typing import Any

MAX_WAIT = 20.0  # seconds


async def no_long_waits(response: Any) -> None:
    """A response hook for an SDK's HTTP client: no retry after a wait longer than MAX_WAIT. Both obey the header."""
    if response.status_code >= 400 and _wait(response.headers) > MAX_WAIT:
        response.headers["x-should-retry"] = "false"


def _wait(headers: Any) -> float:
    """Seconds that the provider asks for, 0 if it does not."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return math.inf if math.isnan(wait) else wait
    try:
        return email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError, OverflowError):
        return 0.0
