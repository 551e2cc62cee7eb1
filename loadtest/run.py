"""One run from start to end: its steps, its result and the verdict.

Completed requests alone are not enough for a verdict. A user whose request hangs sends no others, so a hanging service
produces few failures. Therefore the time that users wait beyond their threshold counts as well.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from loadtest import shapes
from loadtest.record import Key, Record, Series
from loadtest.settings import Settings
from loadtest.verdict import Finding, Threshold, judge, table

OVERDUE = 0.05  # share of the users' time that may be spent waiting longer than the p95 threshold
STOP_TOLERANCE = 2.0  # seconds; Locust ends a run on its own clock
COLLAPSE = 0.5  # throughput has collapsed in a step that has less than this share of a smaller step's rate


@dataclass(frozen=True)
class Mark:
    """The state of the run at one time; times in seconds."""

    at: float
    series: dict[Key, Series]
    present: float
    """User-seconds: the time that users were active, summed over users."""
    overdue: float
    """User-seconds spent waiting beyond a threshold."""


@dataclass(frozen=True)
class Step:
    """One step of a step run: users, requests per second, and the thresholds it missed (empty: none)."""

    users: int
    rate: float
    missed: list[str]


class Run:
    """The current run, or the last one. `clock` returns monotonic seconds."""

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
        """Start a run; discards the previous one."""
        self.present = self.overdue = 0.0
        self.looked = self.clock()
        self.began = self.step_began = self._mark()
        self.step = 0
        self.steps: list[Step] = []
        self.stopped_after: float | None = None

    def look(self, waiting: int) -> Step | None:
        """Update the run, about twice a second. `waiting` is the number of users that wait beyond their threshold.

        Returns:
            The step that has just ended, if one has.
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
        """End the run. Returns the last step if it has not been returned by `look`."""
        self.stopped_after = self.elapsed
        return self._end_step(shapes.STEPS) if self.step == shapes.STEPS - 1 else None

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before its time was over."""
        elapsed = self.elapsed if self.stopped_after is None else self.stopped_after
        return elapsed < self.settings.duration - STOP_TOLERANCE

    @property
    def elapsed(self) -> float:
        return self.clock() - self.began.at

    def window(self) -> dict[Key, Series]:
        """The requests of the current step, or of the whole run if it has no steps."""
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
        if rate == 0 or rate < COLLAPSE * best:
            missed.append(f"{rate:.1f} requests/s, after {best:.1f} with fewer users")
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
        """Each route with its threshold."""
        return judge(self._since(self.began), self.thresholds)

    def report(self, exceptions: Mapping[str, int] | None = None, unfinished: int = 0) -> tuple[str, bool]:
        """The table with the verdict, and whether the run has passed.

        Args:
            exceptions: those that tasks or the start of users have raised, with their numbers.
            unfinished: requests that were still open at the end, and so were not counted.
        """
        findings = self.findings()
        lines = [f"{self.settings.shape} with {self.settings.users} users against {self.settings.host}"]
        lines.append(table(findings))
        if self.settings.shape == "step":
            lines.append(self.capacity())
        late = _overdue(self.began, self._mark())
        lines += [f"Users waited too long: {reason}." for reason in late]
        exceptions = exceptions or {}
        lines += [f"Raised {times} times: {what}" for what, times in exceptions.items()]
        passed = False
        if exceptions:
            lines.append(f"Verdict: FAILED, {sum(exceptions.values())} exceptions in tasks.")
        elif not findings:
            lines.append("Verdict: FAILED, no request completed.")
        elif self.interrupted:
            after = f"{self.stopped_after or self.elapsed:.0f} s of {self.settings.duration:g} s"
            lines.append(f"Verdict: none, interrupted after {after}.")
        elif unfinished:
            lines.append(f"Verdict: FAILED, {unfinished} requests were still open at the end.")
        elif late or any(finding.missed for finding in findings) or any(step.missed for step in self.steps):
            lines.append("Verdict: FAILED, thresholds were missed (loadtest/thresholds.toml).")
        else:
            lines.append("Verdict: passed, every threshold was met.")
            passed = True
        return "\n".join(lines), passed

    def capacity(self) -> str:
        """The largest number of users that met every threshold, as did all smaller steps."""
        kept = list(takewhile(lambda step: not step.missed, self.steps))
        if not self.steps:
            return "Capacity: unknown, no step completed."
        if not kept:
            return "Capacity: even the first step missed a threshold."
        most = f"{kept[-1].users} users, {kept[-1].rate:.1f} requests/s"
        if len(kept) == len(self.steps):
            return f"Capacity: at least {most}. No step missed a threshold; raise USERS to find the limit."
        return f"Capacity: {most} was the most that met every threshold."


def _overdue(began: Mark, ended: Mark) -> list[str]:
    """Why users waited too long between two marks; empty if they did not."""
    present = ended.present - began.present
    share = (ended.overdue - began.overdue) / present if present else 0.0
    return [f"beyond the p95 threshold for {share:.0%} of their time > {OVERDUE:.0%}"] if share > OVERDUE else []
