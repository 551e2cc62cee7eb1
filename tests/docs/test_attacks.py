"""The table of attacks in docs/security.md and the tests that are marked as attacks name each other."""

from __future__ import annotations

import re

import pytest

from ops.paths import PROJECT

ROW = re.compile(r"^\| ([^|]+) \| (\d+) \| 0 \| (`tests/[^|]+`) \|$", re.MULTILINE)
MARK = re.compile(r"^@pytest\.mark\.attack\(\s*\"([^\"]+)\"", re.MULTILINE)

pytestmark = pytest.mark.check


def test_the_table_of_attacks_names_every_test_that_is_one() -> None:
    text = (PROJECT / "docs" / "security.md").read_text()
    listed = {(name, file) for name, _, files in ROW.findall(text) for file in re.findall(r"`([^`]+)`", files)}
    marked = {
        (name, str(file.relative_to(PROJECT)))
        for file in (PROJECT / "tests").rglob("test_*.py")
        for name in MARK.findall(file.read_text())
    }
    assert len(listed) > 10
    assert listed == marked
