"""What a situation is, and what most of them are made of: changes of the healthy world.

The modules beside this one register theirs. A fault begins at minute START. `late` is the number of minutes after
which its first alert no longer helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .world import STEP, World, healthy

START = 30.0
A, B = "a:8000", "b:8000"
USERS = r"/items|/reports|/chat"


@dataclass(frozen=True)
class Situation:
    name: str
    apply: Callable[[World, float, float], None]
    """(world, start, end of the fault)"""
    lasts: float = 20
    late: float = 15
    """Minutes until the first alert; 0 means healthy: none may come."""
    tail: float = 10
    """Minutes that are watched after the end."""
    start: float = START
    step: float = STEP
    """Seconds from scrape to scrape; rules are evaluated every 15, or as rarely as that where it takes minutes."""

    alerts: str = ".*"
    """Which alerts are played (a regular expression): of a week, some take minutes."""

    @property
    def interval(self) -> float:
        """Seconds from one evaluation of the rules to the next."""
        return self.step if self.step >= 60 else STEP

    @property
    def end(self) -> float:
        return self.start + self.lasts

    @property
    def minutes(self) -> float:
        return self.end + self.tail

    def world(self) -> World:
        world = healthy(self.minutes)
        world.step = self.step
        self.apply(world, self.start, self.end)
        return world


SITUATIONS: list[Situation] = []


def situation(name: str, **settings: Any) -> Callable[[Callable[[World, float, float], None]], None]:
    def register(apply: Callable[[World, float, float], None]) -> None:
        SITUATIONS.append(Situation(name, apply, **settings))

    return register


def harmless(name: str, **settings: Any) -> Callable[[Callable[[World, float, float], None]], None]:
    return situation(name, late=0, **settings)


def fail(world: World, start: float, end: float, share: float, **labels: str) -> None:
    """That share of requests becomes a 5xx (fast ones), with an exception each."""
    for series in list(world.find("http_requests_total", status_code="200", **{"endpoint": USERS, **labels})):
        rate = world.series[series][0][1] or 0
        bad = series.replace('status_code="200"', 'status_code="500"')
        world.series[series] = list(world._changed(world.series[series], start, end, lambda v: v * (1 - share)))
        world.series[bad] = list(world._changed(world.series[bad], start, end, lambda _, r=rate: r * share))  # type: ignore[misc]
        base = series.partition("{")[2].replace(', status_code="200"', "")
        for kind in ("request_duration", "response_start"):
            for le in ("0.1", "0.5", "1.0", "5.0", "30.0", "+Inf"):
                name = f'http_failed_{kind}_seconds_bucket{{{base.rstrip("}")}, le="{le}"}}'
                world.series[name] = [(start, None), (end, rate * share), (world.minutes, 0)]
            world.series[f"http_failed_{kind}_seconds_count{{{base}"] = [
                (start, None),
                (end, rate * share),
                (world.minutes, 0),
            ]
        if share >= 0.5:
            place = base.rstrip("}")
            world.series[f'http_exceptions_total{{{place}, exception="Broken"}}'] = [
                (start, None),
                (end, rate * share),
                (world.minutes, 0),
            ]


def slow(world: World, start: float, end: float, share: float, **labels: str) -> None:
    """That share of responses takes about three seconds."""
    for kind in ("request_duration", "response_start"):
        wanted = {"endpoint": "/items|/reports", **labels}
        world.scale(start, end, 1 - share, f"http_{kind}_seconds_bucket", le=r"0\.1|0\.5|1\.0", **wanted)


def traffic(world: World, start: float, end: float, factor: float, **labels: str) -> None:
    wanted = {"endpoint": USERS, **labels}
    world.scale(start, end, factor, "http_(requests|request_duration|response_start).*", **wanted)


def down(world: World, start: float, end: float, **labels: str) -> None:
    world.set(start, end, 0, "up", **labels)
    world.gone(start, end, **labels)


def flap(world: World, start: float, end: float, every: float, minutes: float, instance: str = A) -> None:
    """An instance is down for `minutes`, again and again: `every` so many minutes."""
    while start < end:
        down(world, start, start + minutes, job="app", instance=instance)
        start += every


def deploy(world: World, minute: float, number: int) -> None:
    """The `number`-th rolling deploy: one instance after the other restarts, and takes half a minute."""
    for offset, instance in ((0, A), (2, B)):
        begins = minute + offset
        down(world, begins, begins + 0.5, job="app", instance=instance)
        world.set(
            begins + 0.5, world.minutes, 5000 + number, "process_start_time_seconds", job="app", instance=instance
        )


def vanished(world: World, start: float, end: float, **labels: str) -> None:
    world.gone(start, end, **labels)
    world.set(start, end, None, "up", **labels)


def bucket_slow(world: World, start: float, end: float, histogram: str, beyond: str) -> None:
    """All observations lie beyond these bounds (a regular expression of `le`)."""
    world.scale(start, end, 0, f"{histogram}_bucket", le=beyond)
