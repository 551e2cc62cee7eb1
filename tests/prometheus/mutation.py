"""Do the unit tests detect a wrong rule? `make test-rules-mutation`.

Changes one thing of one rule at a time and runs the unit test of that rule: it must fail. Changed are, of every alert,
its thresholds and factors (a fifth lower and higher; 0 and small whole numbers by one), its comparisons, its `for` and
`keep_firing_for` (half and one and a half, but by one evaluation of its unit test at least; some `for` where there is
none), the selectors of its series and the labels it aggregates; of every recording rule the same as far as it has them.
Windows are in the names of the recorded series, where a test holds them.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.prometheus.rules import (
    RULES,
    Rule,
    alerts,
    document,
    in_parallel,
    load_rules,
    metrics,
    promtool,
    recordings,
    unit_tests,
)

LEAST_NOTICED = 0.99
NUMBER = r"-?\d+(?:\.\d+)?"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
OTHER_COMPARISON = {">": "<", "<": ">", ">=": "<", "<=": ">", "==": "!=", "!=": "=="}

# Rule -> what stands before its selectors that change nothing by themselves, only save reading series: a subtraction
# has only what both sides have, so the other side's would do. The mutant has no such selector in the whole rule.
_ZERO = r"or 0 \* sum without \([^)]*\) \(\s*rate\(\w+\{"  # in place of failures, where there are none
ON_BOTH_SIDES = {
    "job_endpoint_method:http_slow:rate1m": r"\{",
    "instance:http_slow:rate2m": _ZERO,
}


@dataclass(frozen=True)
class Mutant:
    rule: Rule
    kind: str
    change: str
    field: str
    value: Any


def mutants(rule: Rule) -> Iterator[Mutant]:
    """Every single change of `rule`."""
    expr = rule.expr

    def changed(kind: str, match: re.Match[str], replacement: str, group: int = 0) -> Mutant:
        start, end = match.span(group)
        context = " ".join(expr[max(0, start - 25) : min(len(expr), end + 10)].split())
        change = f"{match[group]} -> {replacement or 'nothing'} in ...{context}..."
        return Mutant(rule, kind, change, "expr", expr[:start] + replacement + expr[end:])

    for match in re.finditer(rf"(?:(?:>=|<=|==|!=|>|<)\s*(?:on \([^)]*\) group_left \(\) )?)({NUMBER})\b", expr):
        guard = float(match[1]) == 0 and (not rule.is_alert or expr[match.end() :].startswith(")"))
        for value in () if guard else _near(float(match[1])):  # against NaN: the change of the comparison covers it
            yield changed("threshold", match, f"{value:g}", 1)
    for match in re.finditer(rf"(?<![\w.:])({NUMBER}) \*|, ({NUMBER})\)|\(({NUMBER}),|vector\(({NUMBER})\)", expr):
        number = next(group for group in range(1, 5) if match[group])
        if float(match[number]) and not (rule.is_alert and "vector" in match[0]):  # the Watchdog's 1 means nothing
            for factor in (0.8, 1.2):
                yield changed("threshold", match, f"{float(match[number]) * factor:g}", number)
    for match in re.finditer(r"(?<![=!~{,\"])(>=|<=|==|!=|>|<)(?![=~])(?=\s)", expr):
        yield changed("comparison", match, OTHER_COMPARISON[match[1]])
    redundant = ON_BOTH_SIDES.get(rule.name)
    everywhere: dict[str, str] = {}
    for match in re.finditer(r'\b(\w+(?:=~|!~|!=|=)"[^"]*")(?:, )?', expr):
        if redundant and re.search(f"{redundant}$", expr[: match.start()]):
            everywhere[match[1]] = re.sub(f"{re.escape(match[1])}(?:, )?", "", expr)
        else:
            yield changed("selector", match, "")
    for selector, without in everywhere.items():
        yield Mutant(rule, "selector", f"{selector} -> nothing in the whole rule", "expr", without)
    for match in re.finditer(r"\b(?:by|without) \(([^)]+)\)", expr):
        labels = match[1].split(", ")
        for label in labels:
            yield changed("labels", match, ", ".join(other for other in labels if other != label), 1)
    if rule.is_alert:
        # Of its unit tests: 30 s, but 5 minutes where a test takes a week.
        step = min((_seconds(document(file)["evaluation_interval"]) for file, _ in tests_of(rule)), default=30)
        for field in ("for", "keep_firing_for"):
            duration = _seconds(str(rule.definition.get(field, "0s")))
            half = duration // (2 * step) * step
            some = (120,) if field == "for" else ()
            for other in (half, max(duration * 2 - half, duration + step)) if duration else some:
                yield Mutant(rule, field, f"{duration}s -> {other}s", field, f"{other}s")


def _near(value: float) -> tuple[float, ...]:
    if value == 0:
        return (1.2,)
    if value in (1, 2, 3, 4):
        return value - 1, value + 1
    return value * 0.8, value * 1.2


def _seconds(duration: str) -> int:
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def tests_of(rule: Rule) -> list[tuple[Path, str]]:
    """(file, name of the test) of the unit tests that are about `rule`."""

    def about(test: dict[str, Any]) -> bool:
        if rule.is_alert:
            return bool(test["name"] == rule.name)
        return any(rule.name in metrics(check["expr"]) for check in test.get("promql_expr_test", ()))

    return [(file, test["name"]) for file, test in unit_tests() if about(test)]


def noticed(mutant: Mutant, tests: list[tuple[Path, str]]) -> bool:
    """Whether a unit test fails, or Prometheus doesn't even accept the rule."""
    with tempfile.TemporaryDirectory(prefix="sightline-mutant-") as name:
        folder = Path(name)
        (folder / "tests").mkdir()
        shutil.copytree(RULES, folder / "rules")
        changed = folder / "rules" / mutant.rule.file.name
        content = yaml.safe_load(changed.read_text())
        for group in content["groups"]:
            for rule in group["rules"]:
                if rule == mutant.rule.definition:
                    rule[mutant.field] = mutant.value
            if mutant.rule.is_alert:  # the others would only take time
                group["rules"] = [
                    rule for rule in group["rules"] if "alert" not in rule or rule["alert"] == mutant.rule.name
                ]
        changed.write_text(yaml.safe_dump(content, sort_keys=False))
        for file, test in tests:
            copy = folder / "tests" / file.name
            shutil.copy(file, copy)
            if promtool("test", "rules", f"--run=^{re.escape(test)}$", copy).returncode != 0:
                return True
    return False


def check(rules: list[Rule]) -> tuple[int, list[Mutant]]:
    """How many mutants there are, and those that no test noticed."""
    tests = {rule: tests_of(rule) for rule in rules}
    for rule, own in tests.items():
        if not own:
            sys.exit(f"{rule.name}: no unit test is about it")
    all_mutants = [mutant for rule in rules for mutant in mutants(rule)]
    with in_parallel() as pool:
        results = list(pool.map(lambda mutant: noticed(mutant, tests[mutant.rule]), all_mutants))
    return len(all_mutants), [mutant for mutant, seen in zip(all_mutants, results, strict=True) if not seen]


def main(names: list[str]) -> None:
    known = {rule.name for rule in load_rules()}
    if unknown := set(names) - known:
        sys.exit(f"no such rule: {', '.join(sorted(unknown))}")
    enough = True
    for title, rules in (("alerts", alerts()), ("recording rules", recordings())):
        chosen = [rule for rule in rules if not names or rule.name in names]
        if not chosen:
            continue
        total, survivors = check(chosen)
        for mutant in survivors:
            print(f"  not noticed: {mutant.rule.name}, {mutant.kind}: {mutant.change}")
        share = 1 - len(survivors) / total
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(m.kind for m in survivors).items()))
        print(
            f"{title}: {total} mutants of {len(chosen)} rules, {total - len(survivors)} noticed: {share:.1%}"
            + (f" (not: {kinds})" if kinds else "")
        )
        enough &= share >= LEAST_NOTICED
    if not enough:
        sys.exit(f"the unit tests must notice {LEAST_NOTICED:.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
