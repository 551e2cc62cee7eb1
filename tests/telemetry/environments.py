"""Virtual environments with some packages and nothing else."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.telemetry.serving import ROOT

UV = (sys.executable, "-m", "uv")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def environment(folder: Path, *packages: str, lock: str | None = None) -> Iterator[Path]:
    """The Python of an environment with these packages, or with those of requirements/LOCK.txt, and nothing else."""
    run(*UV, "venv", "--quiet", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    pins = ("--constraint", "requirements/dev.txt") if lock is None else ("--requirement", f"requirements/{lock}.txt")
    run(*UV, "pip", "install", "--quiet", "--python", str(python), *pins, *packages)
    yield python
    shutil.rmtree(folder)
