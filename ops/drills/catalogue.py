"""The drills: what is broken, and how.

A drill breaks something for real and repairs it, even if it is interrupted. The expected alerts are listed in
prometheus/drills.yml, where an alert that no drill can trigger has a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from ops.drills.target import Target

FAULT_SECONDS = 1800  # a fault ends by itself after half an hour, if the drill is killed before it repairs it

Break = Callable[[Target], AbstractContextManager[None]]


@dataclass(frozen=True)
class Drill:
    """One thing that breaks."""

    name: str
    story: str
    """What happens, in one sentence, as in an incident report."""
    breaks: Break
    outside: bool = False
    """Whether it works without the service's fault injection."""
    mute: bool = False
    """Whether no notification can be sent while it lasts."""


def fault(name: str, **parameters: Any) -> Break:
    """Switch a fault of app/faults on and off."""

    @contextmanager
    def broken(target: Target) -> Iterator[None]:
        target.fault(name, seconds=FAULT_SECONDS, **parameters)
        try:
            yield
        finally:
            target.repair()

    return broken


@contextmanager
def seldom_raised(target: Target) -> Iterator[None]:
    """Three requests end in an unhandled exception, each after three hundred that do not.

    A share of all requests would leave it to chance which endpoints fail, and how often: HttpNewException takes three
    failures of one endpoint, while more than 1 % of its requests is what HttpEndpointFailing alerts on instead.
    """
    with fault("exceptions", share=1, path_prefix="/items/0")(target):
        for _ in range(3):
            for _ in range(300):
                target.visit("/items/1")
                time.sleep(0.01)  # no burst, which rates over few scrapes would show wrong
            target.visit("/items/0")
        yield


def stopped(service: str) -> Break:
    """Stop a service and start it again."""

    @contextmanager
    def broken(target: Target) -> Iterator[None]:
        target.servers.stop_server(service)
        try:
            yield
        finally:
            target.servers.start_server(service)

    return broken


DRILLS = {
    drill.name: drill
    for drill in (
        Drill("slow", "A change made every request two seconds slower.", fault("slow", delay=2)),
        Drill("errors", "Half of all requests fail with 500.", fault("errors", share=0.5)),
        Drill("exceptions", "A new release raises an exception that never occurred before.", seldom_raised),
        Drill(
            "event-loop",
            "A blocking call in a handler stalls the event loop.",
            # A response takes four iterations of the loop: more than ScrapeSlow allows, less than the scrape timeout.
            fault("event-loop", stall=1.6, pause=0),
        ),
        Drill(
            "crash",
            "The service's workers crash as soon as they have started.",
            fault("crash", workers="all", delay=0.5),
        ),
        Drill("database-slow", "Every query takes a second longer.", fault("database-slow", delay=1)),
        Drill("pool-exhausted", "Connections are checked out and never returned to the pool.", fault("pool-exhausted")),
        Drill("deadlocks", "Two transactions lock the same rows in opposite order.", fault("deadlocks", pause=0.5)),
        Drill("long-transaction", "A transaction stays open because of a missing commit.", fault("long-transaction")),
        Drill("llm-slow", "The model's time to first token is ten seconds.", fault("llm-slow", first_token_seconds=10)),
        Drill("llm-incomplete", "Answers end in the middle.", fault("llm-incomplete", share=0.5)),
        Drill("llm-errors", "Half of the LLM calls fail.", fault("llm-errors", share=0.5)),
        Drill("llm-rate-limit", "The provider rejects calls above the quota.", fault("llm-rate-limit")),
        Drill(
            "llm-token-flood", "Answers become very long and expensive.", fault("llm-token-flood", output_tokens=50_000)
        ),
        Drill("cpu", "A process uses all CPUs.", fault("cpu")),
        Drill("service-down", "The service is down.", stopped("app"), outside=True),
        Drill("database-down", "PostgreSQL is down.", stopped("postgres"), outside=True),
        Drill("database-exporter-down", "postgres_exporter is down.", stopped("postgres-exporter"), outside=True),
        Drill("host-exporter-down", "node_exporter is down.", stopped("node-exporter"), outside=True),
        Drill(
            "alertmanager-down",
            "Alertmanager is down: no notifications.",
            stopped("alertmanager"),
            outside=True,
            mute=True,
        ),
    )
}
