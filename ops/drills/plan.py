"""Which drill makes which alert fire: prometheus/drills.yml, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from ops.paths import PROJECT

FILE = PROJECT / "prometheus" / "drills.yml"


@dataclass(frozen=True)
class Plan:
    """Alerts by drill, and the reasons of those that no drill reaches."""

    drills: dict[str, tuple[str, ...]]
    undrilled: dict[str, str]
    lasting: dict[str, str]
    """How long an alert keeps firing after its cause has ended, if that is long."""

    def alerts(self, drill: str) -> tuple[str, ...]:
        """The alerts that a drill must cause; may be empty for a drill that shows an incident without its own alert."""
        return self.drills.get(drill, ())


def load_plan(file: Path = FILE) -> Plan:
    """Read the plan.

    Raises:
        ValueError: an alert has neither a drill nor a reason, or both.
    """
    drills: dict[str, tuple[str, ...]] = {}
    undrilled: dict[str, str] = {}
    lasting: dict[str, str] = {}
    for alert, entry in yaml.safe_load(file.read_text()).items():
        match entry:
            case {"reason": str(reason), **rest} if reason and not rest:
                undrilled[alert] = reason
            case {"drill": str(drill), **rest} if drill and not rest.keys() - {"lasts"}:
                drills[drill] = (*drills.get(drill, ()), alert)
                if rest:
                    lasting[alert] = str(rest["lasts"])
            case _:
                raise ValueError(f"{file.name}: {alert}: give it a drill (and perhaps `lasts`) or a reason")
    return Plan(drills, undrilled, lasting)
