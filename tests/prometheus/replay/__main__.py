"""`make replay`: a line for each situation, the sum, and an exit code of 1 if it falls short of the targets.

`python -m tests.prometheus.replay [--rules FILE ... [--hours N]] [NAME ...]`

--rules: other rule files than this project's, to compare; then nothing is inhibited, as only this project's
Alertmanager knows these alerts, and no target is asked for.
--hours: of health before each situation, for windows of days.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import (  # noqa: F401  they register their situations
    days,
    health,
    more,
    numbers,
    operations,
    servers,
    services,
    shapes,
    sizes,
    variants,
)
from .history import play_after
from .play import HEAD, OURS, line, load, play
from .situations import SITUATIONS
from .summary import summarize


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.prometheus.replay")
    parser.add_argument("--rules", nargs="+", type=Path, help="rule files of others, to compare")
    parser.add_argument("--hours", type=float, default=0, help="hours of health before each situation, with --rules")
    parser.add_argument("names", nargs="*", help="parts of names of situations")
    options = parser.parse_args()
    if missing := [file for file in options.rules or () if not file.is_file()]:
        parser.error(f"no such file: {', '.join(map(str, missing))}")
    if options.hours and not options.rules:
        parser.error(
            "--hours goes with --rules: this project's rules count what they don't know as good, whatever the history"
        )
    chosen = [one for one in SITUATIONS if not options.names or any(part in one.name for part in options.names)]
    if not chosen:
        parser.error(f"no situation is called like {', '.join(options.names)}")
    results = []
    print(HEAD)
    rules = tuple(options.rules or OURS)
    played = play_after(options.hours, chosen, load(rules)) if options.hours else play(chosen, rules, not options.rules)
    for result in played:
        print(line(result), flush=True)
        results.append(result)
    summary = summarize(results)
    print(summary)
    if options.rules or options.names:
        return 0
    missed = summary.missed()
    for target in missed:
        print(f"Missed: {target}", file=sys.stderr)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
