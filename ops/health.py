"""Health of the servers, of Prometheus' targets, and of the stores it writes to. Standard library only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TypeVar

from ops import remote_write
from ops.console import log
from ops.errors import OpsError
from ops.stack import Stack

T = TypeVar("T")

HEALTHY_TIMEOUT = 180.0  # seconds for everything to become healthy
CRASHING_TIMEOUT = 15.0  # seconds after which a server that keeps crashing ends the start
LOOK_EVERY = 0.3
SCRAPED_TIMEOUT = 20.0  # seconds for the first scrape, of which there is one every 15 s
SENT_TIMEOUT = 15.0  # seconds for the first samples to reach a store elsewhere
OPTIONAL_JOBS = {"locust"}  # scrape jobs whose targets need not be there


def wait_until_healthy(stack: Stack) -> None:
    """Log each server as it becomes healthy, then Prometheus' targets.

    Raises:
        OpsError: it takes too long.
    """
    started = time.monotonic()
    waiting = {state.name for state in stack.states()}
    log.info("Waiting for %d servers", len(waiting))
    while waiting:
        _wait_for(stack, waiting, started)
        while not (targets := scraped(stack)) or any(health != "up" for health in targets.values()):
            if time.monotonic() - started > HEALTHY_TIMEOUT:
                bad = ", ".join(sorted(job for job, health in targets.items() if health != "up"))
                raise OpsError(f"Prometheus cannot scrape: {bad or 'anything'}. `make status` shows more.")
            time.sleep(LOOK_EVERY)
        problems = {state.name: state.problem for state in stack.states() if state.problem}
        for name, problem in problems.items():  # it was healthy before: it keeps crashing
            if time.monotonic() - started > HEALTHY_TIMEOUT:
                raise _gave_up(stack, name, problem)
        waiting = set(problems)
    log.info("  %-19sup after %.1f s", "all targets", time.monotonic() - started)


def _wait_for(stack: Stack, waiting: set[str], started: float) -> None:
    """Wait until each of these servers has been healthy."""
    died: dict[str, float] = {}  # when it was first seen dead
    while waiting:
        for state in (state for state in stack.states() if state.name in waiting):
            now = time.monotonic()
            if state.problem is None:
                log.info("  %-19shealthy after %.1f s", state.name, now - started)
                waiting.discard(state.name)
            elif state.dead and now - died.setdefault(state.name, now) > CRASHING_TIMEOUT:
                raise _gave_up(stack, state.name, "keeps crashing")
            if state.problem and now - started > HEALTHY_TIMEOUT:
                raise _gave_up(stack, state.name, state.problem)
        time.sleep(LOOK_EVERY)


def _gave_up(stack: Stack, name: str, problem: str) -> OpsError:
    last = "".join(f"\n  {line}" for line in stack.last_words(name).strip().splitlines()[-5:])
    return OpsError(
        f"{name} {problem}. The end of its log:{last}\n`make logs SERVICE={name}` shows more; `make down` stops."
    )


def scraped(stack: Stack) -> dict[str, str]:
    """Scrape job -> health of its worst target; empty if Prometheus can't be asked. Optional jobs only when up."""
    try:
        active = json.loads(stack.ask("prometheus", "/api/v1/targets?state=active"))["data"]["activeTargets"]
    except (OpsError, ValueError, KeyError, TypeError):  # or another server listens on its port
        return {}
    worst_last = sorted(active, key=lambda target: target["health"] != "up")
    health = {target["labels"]["job"]: target["health"] for target in worst_last}
    return {job: state for job, state in health.items() if job not in OPTIONAL_JOBS or state == "up"}


def first_scrapes(stack: Stack) -> dict[str, str]:
    """`scraped` as soon as each target has been scraped: after a reload all of them are new for a moment."""
    return _settled(lambda: scraped(stack), lambda found: "unknown" in found.values(), SCRAPED_TIMEOUT)


def first_samples(stack: Stack) -> dict[str, str | None]:
    """`stores` as soon as samples were accepted or rejected, or after SENT_TIMEOUT."""
    return _settled(lambda: stores(stack), lambda found: any(found.values()), SENT_TIMEOUT)


def _settled(look: Callable[[], T], unsettled: Callable[[T], bool], timeout: float) -> T:
    """Poll until the result is settled, or for `timeout` seconds; returns the last one."""
    deadline = time.monotonic() + timeout
    while unsettled(found := look()) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return found


def stores(stack: Stack) -> dict[str, str | None]:
    """The stores that Prometheus sends samples to, each with its problem or None; empty if it can't be asked."""
    if not remote_write.is_on(stack.settings):
        return {}
    try:
        return remote_write.report(stack.ask("prometheus", "/metrics"))
    except OpsError:
        return {}
