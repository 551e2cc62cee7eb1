"""Every alert by a real fault: pending, firing, delivered, resolved, on real servers with an accelerated configuration.

Each drill is a test of its own. What happens to every alert is followed from its drill to the end, so that the slow
ones (a burn rate that has to leave a window of hours, here of minutes) can resolve while others are tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import psutil
import pytest

from ops.drills.catalogue import DRILLS
from ops.drills.watch import Course, Watch
from ops.health import scraped
from tests.ops.drills.breakages import BREAKAGES
from tests.ops.drills.lab import Lab, running_lab
from tests.ops.drills.order import NAMES, PLAN, UNFELT
from tests.running import wait_until

pytestmark = pytest.mark.drill

STAGES = ("pending", "firing", "delivered", "resolved")  # of an alert: the columns of the report
PATIENCE = 240.0  # seconds for an alert to fire, to arrive, to resolve: a loaded machine of two cores needs some

# Whoever breaks the service, its database or what it depends on burns its error budgets, too: by design, that pages.
AVAILABILITY = {"AvailabilityBurn"}
LATENCY = {"LatencyBurn"}
# What the machine does beside the drills is its own affair: a test that has just ended, or another one, keeps it busy.
BUSY = {"HostCpuBusy", "HostLoadHigh"}
# Other critical alerts that a fault brings about as it should.
CONSEQUENCES = {
    "scrape-limit": {"ServiceDown"},  # what can't be scraped looks like what is down
    "event-loop": {"ServiceDown"},  # scrapes time out
    "cpu": {"ServiceDown"},
    "load-high": {"ServiceDown"},
    "alertmanager-down": {"AlertmanagerNotificationsFailing"},
    "connections": {"PostgresDown"},
    "scrape-config-lost": {"ServiceDown"},  # its targets have vanished
}
# When Prometheus loads its configuration anew it knows no Alertmanager for some seconds; the real `for` takes no
# notice.
RELOADED = {"PrometheusNoAlertmanager", "PrometheusNotificationsFailing"}
for name in (
    "alertmanager-lost",
    "config-broken",
    "metrics-lost",
    "rule-broken",
    "rules-heavy",
    "scrape-config-lost",
    "scrape-limit",
):
    CONSEQUENCES[name] = CONSEQUENCES.get(name, set()) | RELOADED
# While these last nothing can be delivered; that is what they are.
MUTE = {"alertmanager-lost", "receiver-down"} | {drill.name for drill in DRILLS.values() if drill.mute}


@dataclass
class Report:
    """What is known of the drills so far."""

    watches: dict[str, Watch] = field(default_factory=dict)
    also: dict[str, set[str]] = field(default_factory=dict)
    """Alerts that fired during a drill beside those that were expected of it."""
    notes: list[str] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    """Alerts that still fire in the end, and rightly: the machine has more to do than this."""

    def courses(self) -> list[tuple[str, Course]]:
        """(drill, course) of every expected alert that was seen."""
        return [
            (name, watch.courses[alert])
            for name, watch in self.watches.items()
            for alert in PLAN.alerts(name)
            if alert in watch.courses
        ]

    def look(self, current: str = "") -> None:
        """Follow the alerts that had not resolved when their drill was over; what comes back is another drill's."""
        for name, watch in self.watches.items():
            if name != current and not watch.all_reached(PLAN.alerts(name), "resolved"):
                ended = {alert: course.resolved for alert, course in watch.courses.items()}
                watch.look()
                for alert, course in watch.courses.items():
                    course.resolved = ended.get(alert) or course.resolved

    def lines(self) -> Iterator[str]:
        yield f"{'alert':<34}{'drill':<28}" + "".join(f"{stage:>11}" for stage in STAGES)
        for name, course in sorted(self.courses(), key=lambda row: row[1].alert):
            times = {stage: getattr(course, stage) for stage in STAGES}
            words = {stage: "-" if at is None else f"{at:.1f} s" for stage, at in times.items()}
            words |= {"delivered": "muted"} if course.muted else {}
            yield f"{course.alert:<34}{name:<28}" + "".join(f"{word:>11}" for word in words.values())
        yield ""
        yield "Seconds from the fault, for `resolved` from its end. muted: another alert says it (inhibit_rules)."
        yield "Without `delivered`: while it lasts nothing can be delivered; that is what the alert is about."
        yield from self.notes
        for alert in self.busy:
            yield f"{alert} goes on, rightly: the machine has more to do than this."
        for name, alerts in self.also.items():
            if alerts:
                yield f"Beside what was expected, {name} made fire: {', '.join(sorted(alerts))}"
        yield ""
        yield f"{len(self.courses())} alerts fired for a real fault. {len(PLAN.undrilled)} can't be drilled:"
        for alert, reason in PLAN.undrilled.items():
            yield f"  {alert}: {reason}"


def breaking(name: str, lab: Lab) -> AbstractContextManager[None]:
    return BREAKAGES[name](lab) if name in BREAKAGES else DRILLS[name].breaks(lab.stack)


def firing(lab: Lab) -> set[str]:
    return {alert["labels"]["alertname"] for alert in lab.stack.alerts() if alert["state"] == "firing"} - {"Watchdog"}


def well_but(lab: Lab, tolerated: set[str]) -> bool:
    """Whether nothing fires but what is tolerated; says what does."""
    assert not (alerts := firing(lab) - tolerated), f"still firing: {alerts}"
    return True


def recover(lab: Lab) -> None:
    """Wait until the stack is healthy again, but for what is slow to resolve or the machine's own affair."""
    wait_until(lambda: set(scraped(lab.native).values()) == {"up"} and lab.rate() > 5, PATIENCE)
    wait_until(lab.knows_alertmanager, PATIENCE)
    wait_until(lambda: well_but(lab, AVAILABILITY | LATENCY | BUSY | PLAN.lasting.keys()), PATIENCE)
    wait_until(lambda: not {alert["labels"]["alertname"] for alert in lab.stack.alerts()} & RELOADED, PATIENCE)


def busy() -> set[str]:
    """Which alerts of a busy machine are right, by what this process sees of it."""
    load_high = os.getloadavg()[1] > 2 * (os.cpu_count() or 1)
    cpu_busy = psutil.cpu_percent(interval=5) > 90
    return {alert for alert, right in (("HostLoadHigh", load_high), ("HostCpuBusy", cpu_busy)) if right}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("The drills fill a file system and a control group of their own, which needs root.")
    with running_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    """What is known of the drills; printed when all are over."""
    report = Report()
    yield report
    print("\n", *report.lines(), sep="\n")


def test_all_is_quiet_before_the_first_drill_but_the_watchdog(lab: Lab) -> None:
    wait_until(lambda: "Watchdog" in lab.receiver.fired, PATIENCE)
    wait_until(lambda: well_but(lab, BUSY), PATIENCE)


@pytest.mark.parametrize("name", NAMES)
def test_drill(name: str, lab: Lab, report: Report) -> None:
    began = time.monotonic()
    drill(name, lab, report)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def drill(name: str, lab: Lab, report: Report) -> None:
    """Break it, see the expected alerts fire and arrive, repair it, see them resolve, and no other delivered."""
    expected = PLAN.alerts(name)
    recover(lab)  # from a drill that failed
    wait_until(lambda: not firing(lab) & set(expected) - BUSY, PATIENCE)
    report.notes += [
        f"{alert} fired before {name} began: the machine was busy." for alert in firing(lab) & set(expected)
    ]
    before = {alert["labels"]["alertname"] for alert in lab.stack.alerts()}  # pending ones, too
    lab.receiver.forget()
    report.watches[name] = watch = Watch(lab.stack, lambda *_: None, lambda: lab.receiver.fired)

    def until(stage: str, alerts: set[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not watch.all_reached(alerts, stage):
            missing = sorted(alert for alert in alerts if not watch.all_reached([alert], stage))
            seen = [watch.courses[alert] for alert in missing if alert in watch.courses]
            assert time.monotonic() < deadline, f"{', '.join(missing)}: not {stage} within {PATIENCE:g} s; seen: {seen}"
            time.sleep(0.25)
            watch.look()
            report.look(current=name)

    with breaking(name, lab):
        until("firing" if name in MUTE else "delivered", set(expected))
    watch.repaired()
    until("resolved", set(expected) - PLAN.lasting.keys() - BUSY)
    fired = {alert: course for alert, course in watch.courses.items() if course.firing is not None}
    report.also[name] = fired.keys() - before - {*expected, "Watchdog"}
    felt = LATENCY if name in UNFELT else LATENCY | AVAILABILITY
    pages = {alert for alert in report.also[name] if fired[alert].severity == "critical"}
    assert not pages - felt - CONSEQUENCES.get(name, set()), f"other critical alerts fired: {pages}"
    recover(lab)


def test_in_the_end_everything_is_resolved(lab: Lab, report: Report) -> None:
    def resolved() -> bool:
        report.look()
        unresolved = {course.alert for _, course in report.courses() if course.resolved is None}
        report.busy = unresolved & busy()
        assert not unresolved - report.busy, f"not resolved: {unresolved}"
        return well_but(lab, BUSY)

    wait_until(resolved, 3 * PATIENCE)


def test_every_alert_that_can_be_drilled_was(report: Report) -> None:
    seen = {course.alert: (name, course) for name, course in report.courses()}
    assert sorted(seen) == sorted(alert for alerts in PLAN.drills.values() for alert in alerts)
    for name, course in seen.values():
        assert None not in (course.pending, course.firing), course
        assert course.resolved is not None or course.alert in report.busy, course
        assert course.delivered is not None or name in MUTE, course
