"""A stack of the test's own, with a `docker` that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ops.fake_docker import Docker


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)
