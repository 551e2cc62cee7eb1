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
    assert names - planned.keys() == set(), "alerts without a line in prometheus/drills.yml"
    assert planned.keys() - names == set(), "prometheus/drills.yml names alerts that do not exist"
    assert [alert for alert, lines in planned.items() if lines > 1] == [], "twice in prometheus/drills.yml"


def test_every_drill_exists_once() -> None:
    assert set(PLAN.drills) <= DRILLS.keys() | BREAKAGES.keys()
    assert not DRILLS.keys() & BREAKAGES.keys()
    assert set(FIRST) | UNFELT <= set(NAMES)
