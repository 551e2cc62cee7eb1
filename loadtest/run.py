"""One run from its start to its end: what it did, how its steps went, and the verdict.

Requests that end are not enough to judge by. People whose requests hang send no others, so a service that stands still
has few failures to show for it; that is why the time that people wait beyond their threshold counts as well.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from loadtest import shapes
from loadtest.record import Key, Record, Series
from loadtest.settings import Settings
from loadtest.verdict import Finding, Threshold, judge, table

OVERDUE = 0.05  # share of the people's time that may be spent waiting longer than the p95 threshold
FALL = 0.5  # a step of more people that gets less than this share of an earlier step's rate has broken down


@dataclass(frozen=True)
class Mark:
    """How far the run was at a moment; times in seconds."""

    at: float
    series: dict[Key, Series]
    present: float
    """Seconds that people were there, together."""
    overdue: float
    """Those of them that were spent waiting beyond a threshold."""


@dataclass(frozen=True)
class Step:
    """One step of a step run: its people, its requests per second, and why it was too much (nothing: it was not)."""

    users: int
    rate: float
    missed: list[str]


class Run:
    """The run that is under way, or the last one. `clock` gives seconds that only ever grow."""

    def __init__(
        self,
        settings: Settings,
        thresholds: Mapping[str, Threshold],
        record: Record,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.thresholds = thresholds
        self.record = record
        self.clock = clock
        self.start()

    def start(self) -> None:
        """A run begins now; of a former one nothing counts any more."""
        self.present = self.overdue = 0.0
        self.looked = self.clock()
        self.began = self.step_began = self._mark()
        self.step = 0
        self.steps: list[Step] = []

    def look(self, waiting: int) -> Step | None:
        """Called twice a second or so: `waiting` people wait longer than their threshold allows.

        Returns:
            The step that is over, if one is.
        """
        now = self.clock()
        self.present += self.record.users * (now - self.looked)
        self.overdue += min(waiting, self.record.users) * (now - self.looked)
        self.looked = now
        current = (
            shapes.STEPS if self.elapsed >= self.settings.duration else shapes.step_at(self.settings, self.elapsed)
        )
        return self._end_step(current) if current > self.step else None

    def stop(self) -> Step | None:
        """The run is over. The last step may have ended without being looked at."""
        return self._end_step(shapes.STEPS) if self.step == shapes.STEPS - 1 else None

    @property
    def elapsed(self) -> float:
        return self.clock() - self.began.at

    def window(self) -> dict[Key, Series]:
        """The requests of the present step, or of the whole run where it has no steps."""
        return self._since(self.step_began)

    def _end_step(self, following: int) -> Step | None:
        if self.settings.shape != "step":
            return None
        began, self.step_began = self.step_began, self._mark()
        window = self._since(began)
        users = shapes.users_of_step(self.settings, self.step)
        rate = sum(series.requests for series in window.values()) / (self.step_began.at - began.at)
        missed = [
            f"{' '.join(finding.key)}: {', '.join(finding.missed)}"
            for finding in judge(window, self.thresholds)
            if finding.missed
        ]
        missed += _overdue(began, self.step_began)
        best = max((step.rate for step in self.steps if step.users < users), default=0.0)
        if rate == 0 or rate < FALL * best:
            missed.append(f"{rate:.1f} requests/s, after {best:.1f} with fewer people")
        step = Step(users, rate, missed)
        self.steps.append(step)
        self.step = following
        return step

    def _mark(self) -> Mark:
        return Mark(self.clock(), self.record.snapshot(), self.present, self.overdue)

    def _since(self, mark: Mark) -> dict[Key, Series]:
        windows = {key: series.since(mark.series.get(key)) for key, series in self.record.requests().items()}
        return {key: window for key, window in windows.items() if window.requests}

    def findings(self) -> list[Finding]:
        """Each route beside its threshold."""
        return judge(self._since(self.began), self.thresholds)

    def report(self) -> tuple[str, bool]:
        """The table and the verdict, and whether everything was kept."""
        findings = self.findings()
        lines = [f"{self.settings.shape} with {self.settings.users} users against {self.settings.host}"]
        lines.append(table(findings))
        if self.settings.shape == "step":
            lines.append(self.capacity())
        late = _overdue(self.began, self._mark())
        lines += [f"People waited too long: {reason}." for reason in late]
        passed = False
        if not findings:
            lines.append("Verdict: FAILED, not one request was made.")
        elif late or any(finding.missed for finding in findings) or any(step.missed for step in self.steps):
            lines.append("Verdict: FAILED, thresholds were missed (loadtest/thresholds.toml).")
        else:
            lines.append("Verdict: passed, every threshold was kept.")
            passed = True
        return "\n".join(lines), passed

    def capacity(self) -> str:
        """What the steps say: the most people for whom, and for all fewer, everything was kept."""
        kept = list(takewhile(lambda step: not step.missed, self.steps))
        if not self.steps:
            return "Capacity: unknown, no step came to its end."
        if not kept:
            return "Capacity: even the first step missed a threshold."
        most = f"{kept[-1].users} users, {kept[-1].rate:.1f} requests/s"
        if len(kept) == len(self.steps):
            return f"Capacity: at least {most}. No step missed a threshold: more USERS find the limit."
        return f"Capacity: {most} were the most that kept every threshold."


def _overdue(began: Mark, ended: Mark) -> list[str]:
    """Why people waited too long between two marks; empty where they did not."""
    present = ended.present - began.present
    share = (ended.overdue - began.overdue) / present if present else 0.0
    return [f"beyond the p95 threshold for {share:.0%} of their time > {OVERDUE:.0%}"] if share > OVERDUE else []
