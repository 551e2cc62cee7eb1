"""Every alert by a real fault: pending, firing, delivered, resolved, on real servers with an accelerated configuration.

Each drill is a test of its own. What happens to every alert is followed from the first drill to the end, so that the
slow ones (a burn rate that has to leave a window of hours, here of minutes) can resolve while others are tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import yaml

from drills.catalogue import DRILLS
from drills.plan import load_plan
from drills.watch import STAGES, Course, Watch
from native.paths import PROJECT
from tests.drills.breakages import BREAKAGES
from tests.drills.lab import Lab, running_lab
from tests.servers import wait_until

pytestmark = pytest.mark.drill

PLAN = load_plan()
PATIENCE = 240.0  # seconds for an alert to fire, to arrive, to resolve: a loaded machine of two cores needs some
SLOW_TO_RESOLVE = {"AvailabilityBurn6h", "AvailabilityBurn1d", "AvailabilityBurn3d"}
SLOW_TO_RESOLVE |= {"LatencyBurn6h", "LatencyBurn1d", "LatencyBurn3d", "HostLoadHigh"}

# What the machine does beside the drills is its own affair: a test that has just ended, or another one, keeps it busy.
BUSY = {"HostCpuBusy", "HostLoadHigh"}
# Whoever breaks the service, its database or what it depends on burns its error budgets, too: by design, that pages.
SYMPTOMS = {f"{slo}Burn{window}" for slo in ("Availability", "Latency") for window in ("1h", "6h", "1d", "3d")}
# Other critical alerts that a fault brings about as it should.
CONSEQUENCES = {
    "scrape-limit": {"ServiceDown"},  # what can't be scraped can't be told from what is down
    "event-loop": {"ServiceDown"},  # scrapes time out
    "crash": {"ServiceDown"},
    "cpu": {"ServiceDown"},
    "load-high": {"ServiceDown"},
    "alertmanager-down": {"AlertmanagerNotificationsFailing"},
    "alertmanager-lost": {"PrometheusNotificationsFailing"},
    "scrape-config-lost": {"PrometheusNoAlertmanager"},
    "connections": {"PostgresDown"},
}
# While these last nothing can be delivered; that is what they are.
MUTE = {"alertmanager-down", "alertmanager-lost", "receiver-down"}

# Those whose alerts resolve late come first.
FIRST = ["errors", "slow", "load-high"]
NAMES = FIRST + sorted(name for name in PLAN.drills if name not in FIRST)


def breaking(name: str, lab: Lab) -> AbstractContextManager[None]:
    return BREAKAGES[name](lab) if name in BREAKAGES else DRILLS[name].breaks(lab.stack)


def firing(lab: Lab) -> set[str]:
    return {alert["labels"]["alertname"] for alert in lab.stack.alerts() if alert["state"] == "firing"} - {"Watchdog"}


def well_but(lab: Lab, tolerated: set[str]) -> bool:
    """Whether nothing fires but what is tolerated; says what does."""
    assert not (alerts := firing(lab) - tolerated), f"still firing: {alerts}"
    return True


def critical(lab: Lab) -> set[str]:
    return {alert["labels"]["alertname"] for alert in lab.stack.alerts() if alert["labels"]["severity"] == "critical"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("The drills fill a file system and a control group of their own, which needs root.")
    with running_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, tuple[str, Course]]]:
    """Every alert's course, printed when all drills are over."""
    courses: dict[str, tuple[str, Course]] = {}
    yield courses
    print(f"\n\n{'alert':<34}{'drill':<26}" + "".join(f"{stage:>11}" for stage in STAGES))
    for alert, (drill, course) in sorted(courses.items()):
        times = {stage: getattr(course, stage) for stage in STAGES}
        words = {stage: "-" if at is None else f"{at:.1f} s" for stage, at in times.items()}
        words |= {"delivered": "muted"} if course.muted else {}
        print(f"{alert:<34}{drill:<26}" + "".join(f"{word:>11}" for word in words.values()))
    print(f"\n{len(courses)} alerts fired for a real fault. {len(PLAN.undrilled)} can't be drilled:")
    for alert, reason in PLAN.undrilled.items():
        print(f"  {alert}: {reason}")


def test_every_alert_has_a_drill_or_a_reason() -> None:
    alerts = {
        rule["alert"]
        for file in (PROJECT / "prometheus" / "rules").glob("*.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    planned = [alert for drill in PLAN.drills.values() for alert in drill] + list(PLAN.undrilled)
    assert sorted(planned) == sorted(alerts)
    assert set(PLAN.drills) <= DRILLS.keys() | BREAKAGES.keys()
    assert not DRILLS.keys() & BREAKAGES.keys()


def test_all_is_quiet_before_the_first_drill_but_the_watchdog(lab: Lab) -> None:
    wait_until(lambda: "Watchdog" in lab.receiver.fired, PATIENCE)
    wait_until(lambda: well_but(lab, BUSY), PATIENCE)


@pytest.mark.parametrize("name", NAMES)
def test_drill(name: str, lab: Lab, table: dict[str, tuple[str, Course]]) -> None:
    expected = PLAN.alerts(name)
    wait_until(lambda: not firing(lab) & set(expected), PATIENCE)
    before = firing(lab)
    lab.receiver.forget()
    watch = Watch(lab.stack, lambda *_: None, lambda: lab.receiver.fired)
    others: set[str] = set()

    def until(reached: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.25)
            watch.look()
            others.update(alert for alert in watch.courses if watch.courses[alert].firing is not None)
        return True

    def missing(stage: str, among: set[str]) -> list[str]:
        return sorted(alert for alert in among if not watch.all_reached([alert], stage))

    with breaking(name, lab):
        stage = "firing" if name in MUTE else "delivered"
        reached = until(lambda: watch.all_reached(expected, stage))
        unreached = {alert: watch.courses.get(alert) for alert in missing(stage, set(expected))}
    watch.mend()
    for alert in expected:
        if alert in watch.courses:
            table[alert] = (name, watch.courses[alert])
    assert reached, f"not {stage}: {unreached}"
    soon = set(expected) - SLOW_TO_RESOLVE
    assert until(lambda: watch.all_reached(list(soon), "resolved")), f"not resolved: {missing('resolved', soon)}"
    severities = {alert: watch.courses[alert].severity for alert in others}
    pages = {alert for alert, severity in severities.items() if severity == "critical"}
    pages -= {*expected, *before, *SYMPTOMS, *CONSEQUENCES.get(name, ())}
    assert not pages, f"other critical alerts fired: {pages}"
    # The next drill begins on a stack that is well again.
    wait_until(lambda: set(lab.native.targets().values()) == {"up"} and lab.rate() > 5, PATIENCE)
    wait_until(lambda: well_but(lab, SYMPTOMS | SLOW_TO_RESOLVE | BUSY), PATIENCE)


def test_in_the_end_everything_is_resolved(lab: Lab, table: dict[str, tuple[str, Course]]) -> None:
    began = time.time()
    wait_until(lambda: well_but(lab, BUSY), 3 * PATIENCE)
    for _, course in table.values():
        if course.resolved is None:
            course.resolved = time.time() - began
    assert not critical(lab)
    if len(NAMES) == len(PLAN.drills):
        assert sorted(table) == sorted(alert for alerts in PLAN.drills.values() for alert in alerts)
