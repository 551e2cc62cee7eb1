"""The rules and their unit tests as data, for the tests that check them as a whole."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ops.paths import PROJECT
from ops.programs import find
from tests.running import GARBAGE_COLLECTION

PROMETHEUS = PROJECT / "prometheus"
RULES = PROMETHEUS / "rules"
UNIT_TESTS = PROMETHEUS / "tests"
RUNBOOKS = PROJECT / "docs" / "runbooks"


@dataclass(frozen=True, eq=False)
class Rule:
    """A recording rule or an alert."""

    file: Path
    group: str
    name: str
    is_alert: bool
    definition: dict[str, Any]

    @property
    def expr(self) -> str:
        return str(self.definition["expr"])

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.definition.get("labels", {})
        return labels

    @property
    def annotations(self) -> dict[str, str]:
        annotations: dict[str, str] = self.definition.get("annotations", {})
        return annotations


@cache
def document(file: Path) -> Any:
    """A YAML file's content, not to be changed; by libyaml, which takes a tenth of the time."""
    return yaml.load(file.read_text(), yaml.CSafeLoader)


@cache
def load_rules() -> list[Rule]:
    """All rules in the order in which they stand in prometheus/rules."""
    return [
        Rule(file, group["name"], rule.get("alert") or rule["record"], "alert" in rule, rule)
        for file in sorted(RULES.glob("*.yml"))
        for group in document(file)["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[Rule]:
    return [rule for rule in load_rules() if rule.is_alert]


def recordings() -> list[Rule]:
    return [rule for rule in load_rules() if not rule.is_alert]


@cache
def unit_tests() -> list[tuple[Path, dict[str, Any]]]:
    """Every test group of prometheus/tests with its file."""
    return [(file, test) for file in sorted(UNIT_TESTS.glob("*.yml")) for test in document(file)["tests"]]


@cache
def expected_labels() -> dict[str, list[dict[str, str]]]:
    """Alert -> the label sets with which the unit tests see it fire."""
    labels: dict[str, list[dict[str, str]]] = {}
    for _, test in unit_tests():
        for check in test.get("alert_rule_test", ()):
            for alert in check.get("exp_alerts") or ():
                own = {
                    "alertname": check["alertname"],
                    **{key: str(value) for key, value in alert["exp_labels"].items()},
                }
                labels.setdefault(check["alertname"], []).append(own)
    return labels


@cache
def runbook_queries() -> list[tuple[str, str]]:
    """(file name, query) of every query in a runbook."""
    return [
        (file.name, query)
        for file in sorted(RUNBOOKS.glob("*.md"))
        for query in re.findall(r"^```promql\n(.*?)^```$", file.read_text(), re.MULTILINE | re.DOTALL)
    ]


KEYWORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "group_left", "group_right", "offset", "bool"}


def metrics(expr: str) -> set[str]:
    """Names of the series that an expression reads, recorded ones (with colons) included."""
    expr = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    expr = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", expr)
    expr = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expr)
    names = re.findall(r"[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()", re.sub(r"\boffset\s+\w+", " ", expr))
    return {name for name in names if name not in KEYWORDS}


def reads(expr: str) -> set[str]:
    """Names of the series that an expression reads, and of the alerts that it selects among ALERTS."""
    selected = re.findall(r'alertname=~?"([\w|]+)"', expr)
    return metrics(expr).union(*(names.split("|") for names in selected))


def needed_rules(content: dict[str, Any], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The groups of the files of rules that unit tests in `folder` name, with only the rules that the tests look at.

    Directly or through other rules. promtool evaluates all rules in each step, so the rest would take most of its time.
    """
    groups = {name: document((folder / name).resolve())["groups"] for name in content["rule_files"]}
    expressions: dict[str, list[str]] = {}
    for rule in (rule for own in groups.values() for group in own for rule in group["rules"]):
        expressions.setdefault(rule.get("alert") or rule["record"], []).append(str(rule["expr"]))
    needed = {check["alertname"] for test in content["tests"] for check in test.get("alert_rule_test", ())}
    for test in content["tests"]:
        needed.update(*(reads(check["expr"]) for check in test.get("promql_expr_test", ())))
    while more := {read for name in needed for expr in expressions.get(name, ()) for read in reads(expr)} - needed:
        needed |= more
    return {
        name: [
            {**group, "rules": [rule for rule in group["rules"] if (rule.get("alert") or rule["record"]) in needed]}
            for group in own
        ]
        for name, own in groups.items()
    }


def with_needed_rules(file: Path, folder: Path) -> Path:
    """A copy of a file of unit tests, and of its rules those that its tests need."""
    text = file.read_text()
    for name, groups in needed_rules(document(file), file.parent).items():
        copy = folder / f"{file.stem}.{Path(name).stem}.rules"
        copy.write_text(yaml.dump({"groups": groups}, Dumper=yaml.CSafeDumper))
        text = text.replace(name, str(copy), 1)  # as text: what YAML makes of values such as 0x19 is no series
    (folder / file.name).write_text(text)
    return folder / file.name


def wanted_metrics() -> set[str]:
    """Names of the series that rules and runbooks read, but for recorded ones."""
    expressions = [rule.expr for rule in load_rules()] + [query for _, query in runbook_queries()]
    return {name for expr in expressions for name in metrics(expr) if ":" not in name}


def promtool(*arguments: str | Path, merged: bool = False) -> subprocess.CompletedProcess[str]:
    """Run promtool; nothing is raised if it complains. merged: what it complains of is in stdout, in its place."""
    command = [str(find("promtool")["promtool"]), *map(str, arguments)]
    errors = subprocess.STDOUT if merged else subprocess.PIPE
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **GARBAGE_COLLECTION}
    )


def in_parallel() -> ThreadPoolExecutor:
    """A pool as wide as the machine, for programs that are waited for."""
    return ThreadPoolExecutor(os.cpu_count())
