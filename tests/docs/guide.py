"""docs/adopt.md for tests: its sections, its code, and the command that it is about."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ops.paths import PROJECT

GUIDE = (PROJECT / "docs" / "adopt.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$.*?(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def adopt(target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops", "adopt", f"TARGET={target}", *options]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
