"""`make restart`: the replicas of the service are replaced one after the other. Standard library only."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from ops.console import step
from ops.errors import OpsError
from ops.stack import Stack

READY_TIMEOUT = 120.0  # seconds for a replica to start and to be sent requests
ACTIVE = re.compile(r'^haproxy_backend_active_servers\{proxy="app"\} (\d+)', re.MULTILINE)


def restart(stack: Stack) -> None:
    """Replace each replica by one with the current code and settings.

    Where a proxy is in front no request fails: a replica that is to end drains first.

    Raises:
        OpsError: nothing runs, or a new replica does not become ready; the others go on.
    """
    replicas = stack.replicas()
    if not replicas:
        raise OpsError("The service does not run; `make up` starts it.")
    for name in replicas:
        with step(f"Replacing {name}"):
            stack.replace_replica(name)


def wait_until_active(stack: Stack, count: int) -> None:
    """Return once the proxy sends requests to this many replicas.

    Raises:
        OpsError: that takes too long.
    """

    def problem() -> str | None:
        active = _active(stack)
        return None if active >= count else f"Only {active} of {count} replicas are ready"

    _wait(problem, "app")


def wait_until_ready(name: str, probe: Callable[[], str | None]) -> None:
    """Return once the server of this name is healthy: its probe finds no problem.

    Raises:
        OpsError: that takes too long.
    """
    _wait(lambda: (problem := probe()) and f"{name} {problem}", name)


def _wait(look: Callable[[], str | None], server: str) -> None:
    """Poll until there is no problem."""
    deadline = time.monotonic() + READY_TIMEOUT
    while problem := look():
        if time.monotonic() > deadline:
            raise OpsError(f"{problem}; `make logs SERVICE={server}` shows why.")
        time.sleep(0.3)


def _active(stack: Stack) -> int:
    try:
        found = ACTIVE.search(stack.ask("proxy", "/metrics"))
    except OpsError:
        return 0
    return int(found[1]) if found else 0
