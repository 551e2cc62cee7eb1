"""The modules in tests/plan.py exist."""

from __future__ import annotations

from ops.paths import PROJECT
from tests.plan import ALONE, SECONDS


def test_the_modules_of_the_plan_exist() -> None:
    assert [module for module in ALONE | SECONDS.keys() if not (PROJECT / module).is_file()] == []
