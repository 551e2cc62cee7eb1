"""A healthy stack without traffic must be quiet: `make soak-idle`.

Starts a stack of its own, leaves it alone and looks every 15 seconds: no alert but the Watchdog may fire, and no
recording rule may yield NaN. Alerts about the host may fire on a machine that is busy otherwise.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.prometheus.live import live_stack


def soak(minutes: float) -> None:
    fired: dict[str, int] = {}
    pending: dict[str, int] = {}
    nan: set[str] = set()
    looks = 0
    with tempfile.TemporaryDirectory(prefix="sightline-soak-") as folder, live_stack(Path(folder)) as live:
        print(f"Everything is up; {minutes:g} minutes without traffic begin.", flush=True)
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            time.sleep(15)
            looks += 1
            for alert, state in live.alerts().items():
                if alert != "Watchdog":
                    times = fired if state == "firing" else pending
                    times[alert] = times.get(alert, 0) + 1
            nan |= set(live.recorded_nan())
            series = len(live.recorded())
    print(
        f"{looks} looks, {series} recorded series at the end. Fired: {fired or 'none'}. Pending: {pending or 'none'}."
    )
    print(f"NaN: {sorted(nan) or 'none'}.")
    if fired or nan:
        sys.exit("An idle stack must be quiet.")


if __name__ == "__main__":
    soak(float(sys.argv[1]))
