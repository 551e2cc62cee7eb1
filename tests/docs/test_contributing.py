"""The worked examples of CONTRIBUTING.md, applied literally to a copy of the project."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.paths import PROJECT
from tests.copies import project_copy
from tests.prometheus.rules import promtool

GUIDE = (PROJECT / "CONTRIBUTING.md").read_text()
# "... in `FILE`, at the end", "..., before `TEXT`", "..., after `TEXT`" or "the new file `FILE`", and then the code.
STEP = re.compile(
    r"(?:in\s`(?P<file>[\w/.]+)`,\s(?:(?P<where>before|after)\s`(?P<anchor>[^`\n]+)`|at\sthe\send)"
    r"|new\sfile\s`(?P<new>[\w/.]+)`)"
    r"[^`]*:\n\n(?P<fence>`{3,})\w+\n(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


def apply(step: re.Match[str], folder: Path) -> None:
    file = folder / (step["file"] or step["new"])
    if step["new"]:
        assert not file.exists()
        file.write_text(step["code"])
        return
    lines = file.read_text().splitlines(keepends=True)
    at = len(lines)
    if step["anchor"]:
        [found] = [number for number, line in enumerate(lines) if step["anchor"] in line]
        at = found + (step["where"] == "after")
    file.write_text("".join([*lines[:at], step["code"], *lines[at:]]))


@pytest.fixture(scope="module")
def changed() -> Iterator[Path]:
    """The copy, with everything that the guide says."""
    with project_copy() as folder:
        follow(folder)
        yield folder


def follow(folder: Path) -> None:
    steps = list(STEP.finditer(GUIDE))
    assert len(steps) == GUIDE.count("\n```python\n") + GUIDE.count("\n```yaml\n") + 3, (
        "and one of markdown, twice, and of toml"
    )
    for step in steps:
        apply(step, folder)
    run(folder, "-m", "prometheus.src")
    run(folder, "-m", "grafana.src")


def run(folder: Path, *arguments: str) -> str:
    result = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_what_the_guide_adds_is_complete(changed: Path) -> None:
    """No check of style, rules, dashboards or runbooks has anything to say against it."""
    run(changed, "-m", "ruff", "check", "app", "grafana", "tests/app")
    run(changed, "-m", "ruff", "format", "--check", "app", "grafana", "tests/app")
    tests = ("-m", "check", "tests/prometheus/test_rules.py", "tests/grafana")
    slow = "not unit_tests_pass and not queries_of_the_runbooks"  # of all the other alerts
    output = run(changed, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "-k", slow, *tests)
    assert " passed" in output
    unit_test = promtool("test", "rules", "--run=^ItemsMassDeleted$", changed / "prometheus" / "tests" / "http.yml")
    assert unit_test.returncode == 0, unit_test.stdout + unit_test.stderr
    assert "SUCCESS" in unit_test.stdout + unit_test.stderr
    assert "Items deleted" in (changed / "grafana" / "dashboards" / "http.json").read_text()


def test_the_metric_of_the_guide_counts(changed: Path) -> None:
    tests = ("tests/app/test_metrics.py", "tests/docs/test_metrics_page.py")
    output = run(changed, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *tests)
    assert " 4 passed" in f" {output.splitlines()[-1]}"
