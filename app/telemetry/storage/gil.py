# SPDX-License-Identifier: Apache-2.0
"""One step at a time, also where Python runs without a global interpreter lock."""

import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

_Method = TypeVar("_Method", bound=Callable[..., None])

# Without the GIL `cells[i] += x` is no longer one step; with it nothing can come between the load and the store.
_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
LOCK = None if _gil else threading.RLock()


def locked(method: _Method) -> _Method:
    """One call at a time where no GIL sees to that."""
    if LOCK is None:
        return method
    lock = LOCK

    @wraps(method)
    def call(*arguments: Any) -> None:
        with lock:
            method(*arguments)

    return cast(_Method, call)
