"""prometheus/drills.yml has a line for every alert, and every drill that it names exists. Needs no server."""

from __future__ import annotations

from collections import Counter

import pytest

from ops.drills.catalogue import DRILLS
from tests.ops.drills.breakages import BREAKAGES
from tests.ops.drills.order import FIRST, NAMES, PLAN, UNFELT
from tests.prometheus.rules import alerts

pytestmark = pytest.mark.check


def test_every_alert_has_a_drill_or_a_reason() -> None:
    planned = Counter([alert for drill in PLAN.drills.values() for alert in drill] + list(PLAN.undrilled))
    names = {alert.name for alert in alerts()}
    wrong = [f"prometheus/drills.yml has no line for {name}" for name in sorted(names - planned.keys())]
    wrong += [f"prometheus/drills.yml has {name}, which is no alert" for name in sorted(planned.keys() - names)]
    wrong += [f"prometheus/drills.yml has {name} {times} times" for name, times in planned.items() if times > 1]
    assert not wrong, "\n".join(wrong)


def test_every_drill_exists_once() -> None:
    assert set(PLAN.drills) <= DRILLS.keys() | BREAKAGES.keys()
    assert not DRILLS.keys() & BREAKAGES.keys()
    assert set(FIRST) | UNFELT <= set(NAMES)
