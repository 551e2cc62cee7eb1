"""Stacks of the tests' own: with a `docker` that is none, or natively on free ports."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.fake_docker import Docker
from tests.ops.native import Stack, native_stack


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """A stack that has not been started."""
    with native_stack(APP_WORKERS="1") as stack:  # the default, two, takes three times as long to start
        yield stack


@pytest.fixture(scope="module")
def first_start(made: Stack) -> subprocess.CompletedProcess[str]:
    result = made.run("up")
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def stack(made: Stack, first_start: subprocess.CompletedProcess[str]) -> Stack:
    """The stack, up and healthy, whatever the test before did to it."""
    if not made.healthy():
        result = made.run("up")
        assert result.returncode == 0, result.stderr
    return made
