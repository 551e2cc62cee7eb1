"""Which drill makes which alert fire: prometheus/drills.yml, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from drills.catalogue import DRILLS
from native.paths import PROJECT

FILE = PROJECT / "prometheus" / "drills.yml"


@dataclass(frozen=True)
class Plan:
    """Alerts by drill, and the reasons of those that no drill reaches."""

    drills: dict[str, tuple[str, ...]]
    undrilled: dict[str, str]


def load_plan(file: Path = FILE) -> Plan:
    """Read the plan.

    Raises:
        ValueError: an alert has neither drill nor reason, or a drill that doesn't exist.
    """
    drills: dict[str, list[str]] = {name: [] for name in DRILLS}
    undrilled: dict[str, str] = {}
    for alert, entry in yaml.safe_load(file.read_text()).items():
        if set(entry) == {"reason"} and entry["reason"]:
            undrilled[alert] = str(entry["reason"])
        elif set(entry) == {"drill"} and entry["drill"] in drills:
            drills[entry["drill"]].append(alert)
        else:
            raise ValueError(f"{file.name}: {alert}: give it a reason, or a drill out of {', '.join(DRILLS)}")
    return Plan({name: tuple(alerts) for name, alerts in drills.items()}, undrilled)
