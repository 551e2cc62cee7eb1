"""The drills: what is broken, how, and which alerts must come of it.

A drill breaks something for real and mends it again, whatever happens in between. Which alerts are to be expected
stands in the one place for it, prometheus/drills.yml, where an alert that no drill can reach gives its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from ops.drills.target import Target

FAULT_SECONDS = 1800  # a fault ends by itself after half an hour, should the drill die before it mends it

Break = Callable[[Target], AbstractContextManager[None]]


@dataclass(frozen=True)
class Drill:
    """One thing that breaks."""

    name: str
    story: str
    """What happens, in one sentence, as an incident report would begin."""
    breaks: Break
    outside: bool = False
    """Whether it works without the service's faults."""
    mute: bool = False
    """Whether nothing can be delivered while it lasts."""


def fault(name: str, **parameters: Any) -> Break:
    """Switch a fault of app/faults.py on and off."""

    @contextmanager
    def broken(target: Target) -> Iterator[None]:
        target.fault(name, seconds=FAULT_SECONDS, **parameters)
        try:
            yield
        finally:
            target.mend()

    return broken


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
        Drill("errors", "Half of all requests are answered with 500.", fault("errors", share=0.5)),
        Drill(
            "exceptions", "A new release raises an exception nobody has seen before.", fault("exceptions", share=0.2)
        ),
        Drill(
            "event-loop",
            "A handler that forgot to await blocks the event loop.",
            # An answer takes four rounds of the loop: longer than ScrapeSlow allows, shorter than a scrape's timeout.
            fault("event-loop", stall=1.6, pause=0),
        ),
        Drill("crash", "The service's workers die as soon as they are up.", fault("crash", workers="all", delay=0.5)),
        Drill("database-slow", "Every query takes a second longer.", fault("database-slow", delay=1)),
        Drill("pool-exhausted", "Connections are taken and not given back.", fault("pool-exhausted")),
        Drill("deadlocks", "Two transactions lock the same rows in opposite order.", fault("deadlocks", pause=0.5)),
        Drill("long-transaction", "Somebody forgot to commit.", fault("long-transaction")),
        Drill("llm-slow", "The model takes ten seconds to its first word.", fault("llm-slow", first_token_seconds=10)),
        Drill("llm-incomplete", "Answers break off in the middle.", fault("llm-incomplete", share=0.5)),
        Drill("llm-errors", "Half of the calls of the model fail.", fault("llm-errors", share=0.5)),
        Drill("llm-rate-limit", "The provider refuses what is above the quota.", fault("llm-rate-limit")),
        Drill("llm-token-flood", "Answers become endless, and dear.", fault("llm-token-flood", output_tokens=50_000)),
        Drill("cpu", "Something takes all the CPU there is.", fault("cpu")),
        Drill("service-down", "The service is gone.", stopped("app"), outside=True),
        Drill("database-down", "PostgreSQL is gone.", stopped("postgres"), outside=True),
        Drill(
            "database-exporter-down", "Nobody measures PostgreSQL any more.", stopped("postgres-exporter"), outside=True
        ),
        Drill("host-exporter-down", "Nobody measures the host any more.", stopped("node-exporter"), outside=True),
        Drill("alertmanager-down", "Nobody would hear of an alert.", stopped("alertmanager"), outside=True, mute=True),
    )
}
