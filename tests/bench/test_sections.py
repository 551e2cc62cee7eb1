"""`make bench` measures the sections that ONLY names, and nothing where there are none of that name."""

from __future__ import annotations

import subprocess
import sys

from ops.paths import PROJECT


def test_an_unknown_section_is_refused_before_anything_is_measured() -> None:
    command = [sys.executable, "-m", "bench", "Memory"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.splitlines() == [
        "There is no section Memory; the sections are HTTP, Database, LLM, Active users, Over replicas, Dashboards,"
        " Scale."
    ]
