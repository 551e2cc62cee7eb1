"""`python -m tests.prometheus.replay [--rules FILE ...] [NAME ...]`: a line for each situation, and the sum.

--rules: other rule files than this project's, to compare; then nothing is inhibited, as only this project's
Alertmanager knows these alerts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .play import HEAD, OURS, line, play, summary
from .situations import SITUATIONS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.prometheus.replay")
    parser.add_argument("--rules", nargs="+", type=Path, help="rule files of others, to compare")
    parser.add_argument("names", nargs="*", help="parts of names of situations")
    options = parser.parse_args()
    chosen = [one for one in SITUATIONS if not options.names or any(part in one.name for part in options.names)]
    results = []
    print(HEAD)
    for result in play(chosen, tuple(options.rules or OURS), inhibited=not options.rules):
        print(line(result), flush=True)
        results.append(result)
    print(summary(results))


if __name__ == "__main__":
    main()
