"""A healthy stack must be quiet, without traffic and with some: `make soak-idle`, `make soak-idle LOAD=6`.

Starts a stack of its own and looks every 15 seconds: no alert but the Watchdog may fire, and no recording rule may
yield NaN. Alerts about the host may fire on a machine that is busy otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ops.paths import PROJECT
from tests.prometheus.live import Live, live_stack
from tests.running import free_port

RATE = 'sum(rate(http_requests_total{endpoint!~"/metrics|/healthz|/readyz"}[5m]))'


def soak(minutes: float, users: int) -> None:
    """Watch a healthy stack.

    Args:
        minutes: for how long.
        users: of a load test that runs all the time, each with about a request a second; 0 for no traffic.

    Raises:
        SystemExit: an alert fired, NaN was recorded, or the load test ended early.
    """
    fired: dict[str, int] = {}
    pending: dict[str, int] = {}
    nan: set[str] = set()
    looks = 0
    with (
        tempfile.TemporaryDirectory(prefix="sightline-soak-") as folder,
        live_stack(Path(folder)) as live,
        traffic(live, minutes, users) if users else nullcontext() as load,
    ):
        print(f"Everything is up; {minutes:g} minutes {f'with {users} users' if users else 'without traffic'} begin.")
        sys.stdout.flush()
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            time.sleep(15)
            looks += 1
            if load and load.poll() is not None:
                sys.exit("The load test ended early.")
            for alert, state in live.alerts().items():
                if alert != "Watchdog":
                    times = fired if state == "firing" else pending
                    times[alert] = times.get(alert, 0) + 1
            nan |= set(live.recorded_nan())
            series = len(live.recorded())
        rate = sum(live.prometheus.query(RATE).values())
    print(
        f"{looks} looks, {series} recorded series and {rate:.1f} requests per second at the end. "
        f"Fired: {fired or 'none'}. Pending: {pending or 'none'}."
    )
    print(f"NaN: {sorted(nan) or 'none'}.")
    if fired or nan:
        sys.exit("A healthy stack must be quiet.")


@contextmanager
def traffic(live: Live, minutes: float, users: int) -> Iterator[subprocess.Popen[bytes]]:
    """A load test of so many users, a little longer than the soak."""
    environment = {
        **os.environ,
        "HOST": live.app.url,
        "USERS": str(users),
        "THINK": "0.5-1",
        "DURATION": f"{minutes + 5:g}m",
        "SHAPE": "steady",
        "LOCUST_METRICS_PORT": str(free_port()),
    }
    load = subprocess.Popen(
        [sys.executable, "-m", "loadtest"],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield load
    finally:
        load.kill()
        load.wait()


if __name__ == "__main__":
    soak(float(sys.argv[1]), int(sys.argv[2]))
