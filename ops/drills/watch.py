"""The alert timeline of a drill: pending, firing, delivered to a receiver, resolved."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from ops.drills.target import Target


@dataclass
class Course:
    """One alert's timeline: seconds since the fault began (resolved: since its repair), None if not seen."""

    alert: str
    severity: str = ""
    muted: bool = False
    """Inhibited or silenced instead of delivered."""
    pending: float | None = None
    firing: float | None = None
    delivered: float | None = None
    resolved: float | None = None


class Watch:
    """Follows the alerts of a stack from now on and reports each step.

    Args:
        target: the running target.
        report: called with (alert, step, seconds) at each step of any alert; seconds since the fault, or since its
            repair. For an alert that is inhibited or silenced the step is "muted" instead of "delivered", and
            "delivered" follows if it is sent after all.
        delivered: returns the names of the alerts that a receiver got. Without it the step is "in Alertmanager":
            only the receiver shows what it got, and when.
    """

    def __init__(
        self,
        target: Target,
        report: Callable[[str, str, float], None],
        delivered: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self.target = target
        self.report = report
        self.delivered = delivered or target.active
        self.arrived = "delivered" if delivered else "in Alertmanager"
        self.courses: dict[str, Course] = {}
        self.began = time.time()
        self.repaired_at: float | None = None
        self.before = {alert["labels"]["alertname"] for alert in target.alerts()}

    def look(self) -> None:
        """Poll the alerts; ignores a server that does not respond, as the drill may have stopped it."""
        now = time.time()
        with suppress(OSError, ValueError, KeyError):
            alerts = self.target.alerts()
            for alert in alerts:
                self._seen(alert["labels"], alert["state"], now)
            firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
            for course in self.courses.values():
                if course.firing is not None and course.alert not in firing:
                    self._reach(course, "resolved", now)
                elif course.alert in firing and course.resolved is not None:
                    course.resolved = None  # it fires again
        with suppress(OSError, ValueError, KeyError):
            delivered, muted = self.delivered(), self.target.muted()
            for name in {*delivered, *muted}:
                if (arrived := self.courses.get(name)) and arrived.firing is not None:
                    if arrived.muted and name in delivered:
                        arrived.delivered = None  # muted until now
                    if arrived.delivered is None:
                        arrived.muted = name not in delivered
                    self._reach(arrived, "delivered", now)

    def repaired(self) -> None:
        """The fault is repaired; `resolved` is measured from here."""
        self.repaired_at = time.time()

    def all_reached(self, alerts: Collection[str], stage: str) -> bool:
        return all(name in self.courses and getattr(self.courses[name], stage) is not None for name in alerts)

    def _seen(self, labels: dict[str, str], state: str, now: float) -> None:
        name = labels["alertname"]
        course = self.courses.get(name)
        if course is None:
            course = self.courses[name] = Course(name, labels.get("severity", ""))
        self._reach(course, "pending", now)
        if state == "firing":
            self._reach(course, "firing", now)

    def _reach(self, course: Course, stage: str, now: float) -> None:
        if getattr(course, stage) is None:
            since = self.repaired_at or self.began
            setattr(course, stage, now - (since if stage == "resolved" else self.began))
            if course.alert not in self.before:
                step = stage if stage != "delivered" else "muted" if course.muted else self.arrived
                self.report(course.alert, step, now - since)
