"""What the database telemetry costs on a real PostgreSQL, beside OpenTelemetry's, as Markdown.

    python -m bench.bench_database

Three processes, one after the other: alone, as one of several workers, and alone on SQLAlchemy 2.0. In each of them all
peers take turns on one connection; what counts is the CPU time that they add to a bare engine in the same round. A
second bare engine shows what the machine adds by chance, and no target counts as met, or not met, within that. Where
valgrind is there, instructions are counted as well: other work does not change them, but they are no time.
Exits 1 where a target is not met or the noise leaves it open.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.instructions import between_marks, callgrind
from bench.timing import Estimate, difference, estimate
from tests import servers

QUERY_SECONDS = 3.5e-6
TRANSACTION_SECONDS = {"one process": 12e-6, "several workers": 14e-6}
OF_BY_HAND, OF_THEIRS = 0.5, 0.16  # of what a transaction costs with these
MICROSECONDS = 1e-6
CONTROL = "bare, once more"
OURS = "Sightline"
BY_HAND = "listeners by hand"
THEIRS = "OpenTelemetry"
OLDER = Path(sys.prefix, "sqlalchemy-2.0")

Instructions = dict[tuple[str, str], float]  # of what (query, transaction) and peer, each in thousands


class Case(NamedTuple):
    """What bench.queries found."""

    title: str
    seconds: dict[str, dict[str, list[float]]]  # of what and peer, round by round
    instructions: Instructions  # none without valgrind


def measure(url: str, **environment: str) -> dict[str, Any]:
    inherited = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    result = subprocess.run(
        [sys.executable, "-m", "bench.queries"],
        env={**inherited, "BENCH_DATABASE_URL": url, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def instructions(url: str, **environment: str) -> Instructions:
    """What a query and a transaction take with each peer, in thousands of instructions; empty without valgrind."""
    with tempfile.TemporaryDirectory() as folder:
        tool = callgrind(folder)
        if not tool:
            return {}
        inherited = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
        more = {"BENCH_DATABASE_URL": url, "BENCH_INSTRUCTIONS": "1", "PYTHONHASHSEED": "1", **environment}
        command = [*tool, sys.executable, "-m", "bench.queries"]
        done = subprocess.run(command, env={**inherited, **more}, check=True, capture_output=True, text=True)
        between = between_marks(folder)
    found = json.loads(done.stdout)
    return {(what, peer): total / count / 1e3 for (what, peer, count), total in zip(found, between, strict=True)}


def cases() -> list[Case]:
    with servers.postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        url = postgres.dsn().replace("postgresql:", "postgresql+psycopg:")
        with tempfile.TemporaryDirectory() as another:
            settings = [
                ("one process", {}, {}),
                ("several workers", {"PROMETHEUS_MULTIPROC_DIR": folder}, {"PROMETHEUS_MULTIPROC_DIR": another}),
            ]
            if OLDER.is_dir():
                settings.append(("one process", {"PYTHONPATH": str(OLDER)}, {"PYTHONPATH": str(OLDER)}))
            found = []
            for title, first, second in settings:
                result = measure(url, **first)
                title = f"SQLAlchemy {result['sqlalchemy']}, {title}"
                found.append(Case(title, result["seconds"], instructions(url, **second)))
    return found


def added(seconds: dict[str, list[float]], peer: str) -> Estimate:
    return difference(seconds[peer], seconds["bare"])


def beyond_noise(measured: Estimate, seconds: dict[str, list[float]]) -> Estimate:
    """The interval, wider by what two bare engines differ by at most."""
    control = added(seconds, CONTROL)
    noise = max(abs(control.low), abs(control.high))
    return Estimate(measured.value, measured.low - noise, measured.high + noise)


def share(case: Case, what: str, peer: str) -> Estimate:
    """What ours adds as a share of what the peer adds, round by round."""
    seconds = case.seconds[what]
    rounds = zip(seconds[OURS], seconds[peer], seconds["bare"], strict=True)
    return estimate((ours - bare) / (theirs - bare) for ours, theirs, bare in rounds if theirs > bare)


def report(title: str, what: str, found: list[Case]) -> None:
    print(f"### {title}\n")
    print("| | " + " | ".join(case.title for case in found) + " |\n|---|" + "---:|" * len(found))
    bare = [f"{statistics.median(case.seconds[what]['bare']) / MICROSECONDS:.1f} in all" for case in found]
    print("| bare | " + " | ".join(bare) + " |")
    peers = [peer for peer in found[0].seconds[what] if peer != "bare"]
    for peer in peers:
        cells = [added(case.seconds[what], peer).show(MICROSECONDS) for case in found]
        print(f"| {peer} | " + " | ".join(cells) + " |")
    for peer in peers if all(case.instructions for case in found) else ():
        counts = [case.instructions[what, peer] - case.instructions[what, "bare"] for case in found]
        print(f"| {peer}, thousand instructions | " + " | ".join(f"{count:.1f}" for count in counts) + " |")
    print()


def main() -> int:
    found = cases()
    print("Microseconds of CPU time of this process, added to the bare engine's: the median over the rounds and, in")
    print(
        "brackets, the 95 % interval of that median. A second bare engine shows the noise; by that much the intervals"
    )
    print("of the targets are wider.\n")
    report("Added cost of a `SELECT 1`", "query", found)
    report("Added cost of a transaction: connection taken, begin, `SELECT 1`, commit, given back", "transaction", found)
    print("OpenTelemetry refuses SQLAlchemy 2.1 unless its check is switched off, as here. It records no span here,")
    print("which is its cheapest, and has no duration of queries as a metric. By hand only the queries are measured.\n")
    verdicts = []
    for case in found:
        name, seconds = case.title, case.seconds
        spent = beyond_noise(added(seconds["transaction"], OURS), seconds["transaction"])
        limit = TRANSACTION_SECONDS[name.rpartition(", ")[2]]
        target = f"A transaction costs at most {limit / MICROSECONDS:.0f} us ({name})"
        verdicts.append((target, spent.show(MICROSECONDS), spent.at_most(limit)))
        for peer, most in ((BY_HAND, OF_BY_HAND), (THEIRS, OF_THEIRS)):
            if peer in seconds["transaction"] and "one process" in name:
                part = share(case, "transaction", peer)
                verdicts.append((f"A transaction: at most {most} of {peer} ({name})", part.text(2), part.at_most(most)))
        cost = beyond_noise(added(seconds["query"], OURS), seconds["query"])
        verdicts.append(
            (
                f"A query costs at most {QUERY_SECONDS / MICROSECONDS:.1f} us ({name})",
                cost.show(MICROSECONDS),
                cost.at_most(QUERY_SECONDS),
            )
        )
        if THEIRS in seconds["query"]:
            more = difference(seconds["query"][OURS], seconds["query"][THEIRS])
            more = beyond_noise(more, seconds["query"])
            target = f"A query is cheaper than with OpenTelemetry ({name})"
            verdicts.append((target, f"{more.show(MICROSECONDS)} us", more.at_most(0.0)))
    if THEIRS not in found[0].seconds["query"]:
        verdicts.append(("A query is cheaper than with OpenTelemetry", "not installed", "**not proven**"))
    print("### Targets\n\n| target | measured | |\n|---|---:|---|")
    print("\n".join(f"| {target} | {value} | {verdict} |" for target, value, verdict in verdicts))
    return 0 if all(verdict == "met" for *_, verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
