"""The service's command, `python -m app`, where a test waits for its end."""

from __future__ import annotations

import os
import subprocess
import sys

from ops import paths


def run(
    environment: dict[str, str], *arguments: str, program: tuple[str, ...] = ("-m", "app")
) -> subprocess.CompletedProcess[str]:
    """`python -m app ...` with these settings and no others."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=paths.PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
