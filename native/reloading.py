"""Prometheus and Alertmanager read their configuration again, and tell whether they took it.

Standard library only: Docker mode does the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from native.errors import NativeError

PORTS = {"prometheus": 9090, "alertmanager": 9093}  # who does this; the ports inside of the containers
TIMEOUT = 60.0  # seconds for a busy server to come to it
SETTLED = 5.0  # seconds after which a server that had refused before has done so again: nothing else shows it


def reload(name: str, metrics: Callable[[], str], hang_up: Callable[[], object]) -> None:
    """`metrics` returns what the server's /metrics says, `hang_up` sends it SIGHUP.

    Raises NativeError where it refuses: it goes on with what it had then.
    """
    taken_before, loaded_before = _state(name, metrics())
    hang_up()
    deadline = time.monotonic() + (TIMEOUT if taken_before else SETTLED)
    while time.monotonic() < deadline:
        taken, loaded = _state(name, metrics())
        if loaded != loaded_before:
            return
        if taken_before and not taken:
            break
        time.sleep(0.1)
    raise NativeError(
        f"{name} refuses its configuration and goes on with the former one; `make logs SERVICE={name}` shows why."
    )


def _state(name: str, metrics: str) -> tuple[bool, str]:
    """Whether the last configuration was taken, and when one was."""
    facts = dict(re.findall(rf"^{name}_config_last_reload_(\w+) (\S+)$", metrics, re.MULTILINE))
    return facts.get("successful") == "1", facts.get("success_timestamp_seconds", "")
