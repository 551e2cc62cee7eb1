"""What the rules made of all situations together, and what they must."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .play import Result

DETECTED = 0.96  # of the faults
MEDIAN = 3.0  # minutes until the first alert
SENT = 1.3  # alerts that were sent for each fault


@dataclass(frozen=True)
class Summary:
    faults: int
    detected: int
    late: int
    """Detected when it no longer helped."""
    median: float
    """Minutes until the first alert of those detected."""
    sent: float
    """Alerts sent for each of those detected."""
    messages: float
    """In how many messages."""
    healthy: int
    false: int
    """Healthy situations in which an alert was sent."""

    def __str__(self) -> str:
        return (
            f"{self.detected} of {self.faults} faults detected ({self.late} too late), "
            f"median {self.median:.1f} minutes, {self.sent:.2f} sent for each, in {self.messages:.2f} messages; "
            f"false alarms in {self.false} of {self.healthy} healthy situations"
        )

    def missed(self) -> list[str]:
        """The targets that are not met, in words."""
        targets = {
            f"{DETECTED:.0%} of the faults detected": self.detected >= DETECTED * self.faults,
            "none too late": not self.late,
            f"a median of at most {MEDIAN:g} minutes": self.median <= MEDIAN,
            f"at most {SENT:g} alerts sent for each fault": self.sent <= SENT,
            "no false alarm": not self.false,
        }
        return [target for target, met in targets.items() if not met]


def summarize(results: Iterable[Result]) -> Summary:
    results = list(results)
    faults = [result for result in results if result.situation.late]
    healthy = [result for result in results if not result.situation.late]
    detected = [result for result in faults if result.minutes is not None]
    return Summary(
        faults=len(faults),
        detected=len(detected),
        late=sum(not result.in_time for result in detected),
        median=statistics.median([result.minutes or 0 for result in detected] or [0]),
        sent=sum(len(result.sent) for result in detected) / max(len(detected), 1),
        messages=sum(result.messages for result in detected) / max(len(detected), 1),
        healthy=len(healthy),
        false=sum(bool(result.sent) for result in healthy),
    )
