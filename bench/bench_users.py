"""What counting an active user costs, in memory and in a file shared by workers, as Markdown.

    python -m bench.bench_users

CPU time beyond that of an empty function, both taking turns. Exits 1 where a touch costs more than 1.5 microseconds, or
the noise leaves that open.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.telemetry.users import ActiveUsers
from bench.timing import difference

ROUNDS = 41
TOUCHES = 5_000
KNOWN = 1_000_000  # users who were there before
TOUCH_SECONDS = 1.5e-6
MICROSECONDS = 1e-6


def nothing(user_id: str) -> None:
    pass


def seconds(touch: Callable[[str], None], names: Sequence[str]) -> float:
    """Of one touch."""
    started = time.process_time()
    for name in names:
        touch(name)
    return (time.process_time() - started) / len(names)


def main() -> int:
    names = [f"user-{number}" for number in range(TOUCHES)]
    with tempfile.TemporaryDirectory() as folder:
        shared, crowded = ActiveUsers(Path(folder), registry=None), ActiveUsers(registry=None)
        for number in range(KNOWN):
            crowded.touch(f"before-{number}")
        ways = {
            "in memory": ActiveUsers(registry=None).touch,
            "in a file shared by workers": shared.touch,
            "after a million others": crowded.touch,
            "nothing": nothing,
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, touch in ways.items():
                taken[way].append(seconds(touch, names))
        started = time.process_time()
        shared.counts()
        counting = time.process_time() - started
    print("CPU time of a touch beyond an empty function's, in microseconds: the median over the rounds and, in")
    print(
        f"brackets, the 95 % interval of that median. A scrape takes {counting * 1e3:.1f} ms for any number of users.\n"
    )
    print("| a touch at most 1.5 us | measured | |\n|---|---:|---|")
    verdicts = []
    for way in list(ways)[:-1]:
        cost = difference(taken[way], taken["nothing"])
        verdicts.append(cost.at_most(TOUCH_SECONDS))
        print(f"| {way} | {cost.show(MICROSECONDS)} | {verdicts[-1]} |")
    return 0 if all(verdict == "met" for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
