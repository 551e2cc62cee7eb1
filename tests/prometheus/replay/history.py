"""Rules of others after days of health: a window of three days must not be judged by half an hour.

promtool evaluates all rules from the beginning of the history on, which takes hours for days. So each alert's
expression is asked at each look instead, with what its recorded series are recorded from in their place, and its `for`
is counted from look to look. An alert whose expression holds before the fault fires before it. `keep_firing_for` is
left out.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.prometheus.rules import in_parallel, metrics, promtool

from .play import LOOK, Group, Labels, Result, _judge, _looks, _seconds, _seen, affected, changed_by
from .situations import Situation

SELECTOR = r"(?<![\w:]){}(?:\{{([^}}]*)\}})?(?![\w:\[])"


@dataclass(frozen=True)
class Alert:
    number: int
    name: str
    expr: str
    holds: int
    """Seconds of its `for`."""
    labels: tuple[tuple[str, str], ...]

    def query(self) -> str:
        """The expression with the alert's own labels and its number, by which the answer is known."""
        query = f"({self.expr})"
        for name, value in (("alertname", self.name), ("rule", str(self.number)), *self.labels):
            query = f"label_replace({query}, {json.dumps(name)}, {json.dumps(value.replace('$', '$$'))}, '', '')"
        return query


def play_after(hours: float, situations: list[Situation], groups: list[Group]) -> Iterator[Result]:
    """What the alerts of these groups make of each situation after so many hours of health, in their order."""
    moved = [replace(one, start=one.start + 60 * hours) for one in situations]
    with in_parallel() as pool:
        yield from pool.map(lambda one: _play(one, groups), moved)


def inlined(groups: list[Group]) -> list[Alert]:
    """The alerts, each recorded series replaced by the expressions of the rules whose labels its selector accepts."""
    rules = [rule for group in groups for rule in group["rules"]]
    records = [rule for rule in rules if "record" in rule]

    def source(name: str, selector: str) -> str:
        wanted = re.findall(r'(\w+)\s*=\s*"([^"]*)"', selector)
        fitting = [
            _inline(str(rule["expr"]))
            for rule in records
            if rule["record"] == name
            and all(rule.get("labels", {}).get(label, value) == value for label, value in wanted)
        ]
        assert fitting, f"no rule records {name}{{{selector}}}"
        return "(" + " or ".join(f"({expr})" for expr in fitting) + ")"

    def _inline(expr: str) -> str:
        for name in metrics(expr) & {rule["record"] for rule in records}:
            expr = re.sub(SELECTOR.format(re.escape(name)), lambda m, n=name: source(n, m[1] or ""), expr)  # type: ignore[misc]
        return expr

    return [
        Alert(
            number,
            rule["alert"],
            _inline(str(rule["expr"])),
            _seconds(str(rule.get("for", "0s"))),
            tuple((name, str(value)) for name, value in rule.get("labels", {}).items()),
        )
        for number, rule in enumerate(rules)
        if "alert" in rule
    ]


def _play(situation: Situation, groups: list[Group]) -> Result:
    changed, world = changed_by(situation)
    alerts = [alert for alert in inlined(affected(groups, changed, situation.alerts)) if alert.name != "Watchdog"]
    if not alerts:
        return Result(situation)
    read = {name for alert in alerts for name in metrics(alert.expr)}
    own = {name: pieces for name, pieces in world.series.items() if name.partition("{")[0] in read}
    world = replace(world, series=own, sparse=situation.start - 150)
    nothing = [{"labels": "nothing", "value": 0}]
    document = {
        "evaluation_interval": f"{LOOK}s",  # of no rules, but without it promtool loads no samples
        "tests": [
            {
                "interval": f"{situation.step}s",
                "input_series": world.input_series(),
                "promql_expr_test": [
                    {"expr": alert.query(), "eval_time": f"{look}s", "exp_samples": nothing}
                    for look in _looks(situation)
                    for alert in alerts
                ],
            }
        ],
    }
    with tempfile.TemporaryDirectory(prefix="sightline-replay-") as folder:
        file = Path(folder) / "test.yml"
        file.write_text(json.dumps(document))
        output = promtool("test", "rules", file, merged=True).stdout
    holding: dict[int, list[Labels]] = {}
    for time, got in _seen(output):
        holding.setdefault(time, []).extend(got)
    assert " err: " not in output, output[-2000:]
    assert holding or "got: nil" in output, output[-2000:]
    return _judge(
        situation, list(_firing(_looks(situation), holding, {alert.number: alert.holds for alert in alerts})), False
    )


def _firing(
    looks: range, holding: dict[int, list[Labels]], holds: dict[int, int]
) -> Iterator[tuple[int, list[Labels]]]:
    """(seconds, alerts that fire): those that have held for their `for`, or from the first look on."""
    since: dict[str, float] = {}
    for look in looks:
        alerts = {str(sorted(alert.items())): alert for alert in holding.get(look, [])}
        began = look if look != looks.start else float("-inf")
        since = {key: since.get(key, began) for key in alerts}
        yield look, [alert for key, alert in alerts.items() if look - since[key] >= holds[int(alert["rule"])]]
