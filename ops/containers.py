"""Health of the stack's containers, including whether they keep crashing. Standard library only."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ops import shell
from ops.errors import OpsError

# A server that keeps crashing may be found healthy in between, above all one without a health check. It has recovered
# when it has run for ten seconds per restart (after ten, Docker itself forgets its delays), a minute at most.
SECONDS_PER_RESTART = 10.0
LONGEST_DOUBT = 60.0
FORMAT = '{"ID": {{json .Id}}, "restarts": {{json .RestartCount}}, "started": {{json .State.StartedAt}}}'


@dataclass(frozen=True)
class Run:
    """How often Docker has restarted a container by itself, and since when it runs (seconds since 1970)."""

    restarts: int
    started: float


def runs(containers: Sequence[Mapping[str, Any]], environment: Mapping[str, str]) -> dict[str, Run]:
    """The runs of these containers of `docker compose ps` by their ID there; none where one was removed meanwhile."""
    if not containers:
        return {}
    identities = [one["ID"] for one in containers]
    try:
        text = shell.run(["docker", "inspect", "--format", FORMAT, *identities], environment)
    except OpsError:
        return {}
    found = {}
    for one in map(json.loads, text.splitlines()):
        started = datetime.fromisoformat(one["started"]).timestamp()
        found[one["ID"]] = Run(one["restarts"], started)
    return {short: run for short in identities for long, run in found.items() if long.startswith(short)}


def problem(container: Mapping[str, Any], run: Run | None, *, ours: bool) -> str | None:
    """What is wrong with a container of `docker compose ps`; None if nothing is.

    One of an override (not `ours`) may have done what it had to do once.
    """
    state = container["State"]
    if not ours and state == "exited" and container.get("ExitCode") == 0:
        return None
    times = f" (restarts: {run.restarts})" if run and run.restarts else ""
    if state != "running":
        return f"its container is {state}{times}"
    if container.get("Health") not in ("healthy", "", None):
        return f"is {container['Health']}{times}"
    # An engine in a virtual machine may be a little ahead of this clock.
    if run and run.restarts and time.time() - run.started < min(SECONDS_PER_RESTART * run.restarts, LONGEST_DOUBT):
        return f"has crashed within the last minute{times}"
    return None
