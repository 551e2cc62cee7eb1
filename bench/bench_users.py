"""What counting an active user costs, in memory and in a file shared by workers.

    python -m bench.bench_users

Fails if a touch costs more than 1.5 microseconds. The fastest of several rounds counts: other work on the machine only
ever adds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from app.telemetry.users import ActiveUsers

ROUNDS = 9
TOUCHES = 20_000
TOUCH_SECONDS = 1.5e-6


def fastest(users: ActiveUsers) -> float:
    """Seconds of a touch."""
    names = [f"user-{number}" for number in range(TOUCHES)]
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for name in names:
            users.touch(name)
        seconds.append(time.process_time() - started)
    return min(seconds) / TOUCHES


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        alone, shared = ActiveUsers(registry=None), ActiveUsers(Path(folder), registry=None)
        results = {"in memory": fastest(alone), "shared by workers": fastest(shared)}
        started = time.process_time()
        shared.counts()
        counting = time.process_time() - started
    print("Active users, CPU time")
    for name, seconds in results.items():
        print(f"  a touch, {name:18} {seconds * 1e6:6.2f} us")
    print(f"  a scrape                    {counting * 1e3:6.2f} ms")
    worst = max(results.values())
    if worst > TOUCH_SECONDS:
        print(f"A touch costs {worst * 1e6:.2f} us, more than {TOUCH_SECONDS * 1e6} us", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
