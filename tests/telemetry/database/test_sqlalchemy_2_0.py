"""The proofs of this folder once more on SQLAlchemy 2.0: the other tests run on the service's own, 2.1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDER = Path(sys.prefix, "sqlalchemy-2.0")
NAMES = ("queries", "transactions", "pool", "pool_waits", "lost_connections", "instrumenting", "drivers")
FILES = [str(HERE / f"test_{name}.py") for name in NAMES]
NOT_OF_SQLALCHEMY = "not test_operation_of"


def test_everything_holds_on_sqlalchemy_2_0() -> None:
    if not OLDER.is_dir():
        pytest.fail(f"SQLAlchemy 2.0 is not in {OLDER.name}/ of the environment; `make test` puts it there")
    # Without the options of this run, one of which may be the file for its results.
    environment = {**os.environ, "PYTHONPATH": str(OLDER), "PYTEST_ADDOPTS": ""}
    version = subprocess.run(
        [sys.executable, "-c", "import sqlalchemy; print(sqlalchemy.__version__)"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert version.startswith("2.0.")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", NOT_OF_SQLALCHEMY, *FILES],
        cwd=HERE.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) > 100
