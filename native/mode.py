"""`python3 -m native.mode` prints how the stack runs, or would run if started now: docker or native.

Standard library only: asked before anything is installed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from native.paths import HOME

ENGINE_TIMEOUT = 20  # seconds for an engine to answer


def mode() -> str:
    if (Path(os.environ.get("SIGHTLINE_STATE", HOME)) / "run" / "supervisor.sock").exists():
        return "native"  # it runs already
    return "docker" if all(map(_succeeds, (["docker", "compose", "version"], ["docker", "info"]))) else "native"


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=ENGINE_TIMEOUT).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    print(mode())
