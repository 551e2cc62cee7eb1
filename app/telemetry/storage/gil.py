# SPDX-License-Identifier: Apache-2.0
"""Makes `cells[i] += x` atomic where Python runs without a global interpreter lock (free-threaded builds)."""

import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

_Method = TypeVar("_Method", bound=Callable[..., None])

# With the GIL, no other thread runs between the load and the store of `cells[i] += x`.
_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
LOCK = None if _gil else threading.RLock()


def locked(method: _Method) -> _Method:
    """Allow one call at a time; does nothing if there is a GIL."""
    if LOCK is None:
        return method
    lock = LOCK

    @wraps(method)
    def call(*arguments: Any) -> None:
        with lock:
            method(*arguments)

    return cast(_Method, call)
