"""`make incident`: list the drills, or run one against the running stack and follow its alerts to the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ops.drills.catalogue import DRILLS, Drill
from ops.drills.plan import load_plan
from ops.drills.target import DrillError, Target, running
from ops.drills.watch import Watch
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.ports import listens
from ops.stack import Stack

PATIENCE = 15 * 60.0  # seconds to wait for the alerts to fire, and again to resolve; a fault lasts half an hour at most
LOAD_STARTS = 60.0  # seconds for the load test to open its metrics port
LATER = 10 * 60.0  # alerts with a longer `for` are named, not waited for
LOOK_EVERY = 2.0
REPORT_EVERY = 30.0  # seconds between progress lines
HOLD = 3 * 60.0  # how long a fault without expected alerts lasts
WARM_UP = 60.0  # seconds of normal traffic before the fault, as a baseline for the alerts


def incident(name: str, find_stack: Callable[[], Stack]) -> int:
    """List the drills, or run one against the running stack.

    Returns:
        The exit code: 0 if every expected alert fired, reached Alertmanager and resolved, else 1.

    Raises:
        OpsError: there is no such drill, or it cannot run.
    """
    if not name:
        _list()
        return 0
    if name not in DRILLS:
        raise OpsError(f"There is no drill {name}; `make incident` lists them.")
    try:
        return 0 if _run(DRILLS[name], running(find_stack())) else 1
    except KeyboardInterrupt:
        raise OpsError("\nInterrupted; the fault is repaired.") from None
    except ValueError as error:
        raise DrillError(str(error)) from error


def _list() -> None:
    plan = load_plan()
    print("Drills: make incident NAME=...\n")
    for drill in DRILLS.values():
        print(f"  {drill.name:<24}{drill.story}")
        print(f"  {'':<24}{', '.join(plan.alerts(drill.name)) or 'no alert'}")


def _run(drill: Drill, target: Target) -> bool:
    if not drill.outside:
        target.check_faults()
    rules, plan = target.rules(), load_plan()
    alerts = [alert for alert in plan.alerts(drill.name) if alert in rules]
    later = [alert for alert in alerts if rules[alert]["duration"] > LATER]
    expected = [alert for alert in alerts if alert not in later]
    print(f"{drill.name}: {drill.story}")
    print(f"Expecting {', '.join(expected)}." if expected else f"No alert is expected; it lasts {HOLD / 60:g} minutes.")
    for alert in later:
        print(f"{alert} would follow after {rules[alert]['duration'] / 60:g} minutes; the drill does not wait for it.")
    lasting = {alert: plan.lasting[alert] for alert in expected if alert in plan.lasting}
    for alert, span in lasting.items():
        print(f"{alert} keeps firing for {span} after the repair; the drill does not wait for its end.")
    if drill.mute:
        print("No notification can be sent meanwhile; the fault ends when the alerts fire.")
    with _traffic(target):
        print(f"{WARM_UP:g} s of normal traffic first.", flush=True)
        time.sleep(WARM_UP)
        watch = Watch(target, _print)
        with drill.breaks(target):
            print("\nBroken. Alert timeline, in seconds:", flush=True)
            stage = "firing" if drill.mute else "delivered"
            fired = _wait(watch, expected, stage) if expected else _hold(watch)
            links = {alert["labels"]["alertname"]: alert["annotations"] for alert in target.alerts()}
        print("\nRepaired. Alert timeline, in seconds:", flush=True)
        watch.repaired()
        ending = [alert for alert in expected if alert not in lasting]
        resolved = fired and _wait(watch, ending, "resolved")
    print()
    for alert in expected:
        if alert in links:
            print(f"{alert}\n  runbook    {links[alert]['runbook_url']}\n  dashboard  {links[alert]['dashboard_url']}")
    if not fired:
        missing = [alert for alert in expected if not watch.all_reached([alert], stage)]
        print(f"NOT seen within {PATIENCE / 60:g} minutes: {', '.join(missing)}.")
    elif not resolved:
        missing = [alert for alert in ending if not watch.all_reached([alert], "resolved")]
        print(f"NOT resolved within {PATIENCE / 60:g} minutes: {', '.join(missing)}.")
    else:
        print(
            "Every expected alert fired, reached Alertmanager and resolved. The receiver shows what was sent, and when."
        )
    return resolved


def _wait(watch: Watch, alerts: list[str], stage: str) -> bool:
    began = reported = time.monotonic()
    while waiting := [alert for alert in alerts if not watch.all_reached([alert], stage)]:
        now = time.monotonic()
        if now - began > PATIENCE:
            return False
        if now - reported > REPORT_EVERY:
            reported = now
            step = watch.arrived if stage == "delivered" else stage
            print(f"  {now - began:5.0f}  waiting until {', '.join(waiting)}: {step}", flush=True)
        time.sleep(LOOK_EVERY)
        watch.look()
    return True


def _hold(watch: Watch) -> bool:
    deadline = time.monotonic() + HOLD
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        watch.look()
    return True


def _print(alert: str, stage: str, seconds: float) -> None:
    print(f"  {seconds:5.0f}  {alert} {stage}", flush=True)


@contextmanager
def _traffic(target: Target) -> Iterator[None]:
    """A small load test in the background, unless one runs already: without traffic an outage is not noticed."""
    if listens(target.load_metrics_port):
        print("A load test runs already; its traffic is used.")
        yield
        return
    environment = {**os.environ, "HOST": target.app, "USERS": "15", "DURATION": "1h", "SHAPE": "steady"}
    with open(os.devnull, "w") as devnull:
        load = subprocess.Popen(
            [sys.executable, "-m", "loadtest"], cwd=PROJECT, env=environment, stdout=devnull, stderr=subprocess.PIPE
        )
    try:
        deadline = time.monotonic() + LOAD_STARTS
        while load.poll() is None and not listens(target.load_metrics_port) and time.monotonic() < deadline:
            time.sleep(0.2)
        if load.poll() is not None and load.stderr is not None:
            raise DrillError(f"The load test did not start: {load.stderr.read().decode().strip()}")
        yield
    finally:
        load.terminate()
        try:
            load.wait(90)  # its requests have 60 s to finish
        except subprocess.TimeoutExpired:
            load.kill()
