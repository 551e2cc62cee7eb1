"""Replays situations through promtool: which alerts fire when, and which of them Alertmanager would send.

promtool evaluates the rules as Prometheus does, and says what ALERTS holds at any moment when a test expects something
else. From the alerts that fire and the inhibitions of alertmanager.yml follows how many were sent: an alert that has
fired for the 30 s of group_wait without being muted; one that comes back is sent again.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ops.paths import PROJECT
from tests.prometheus.rules import RULES, in_parallel, metrics, promtool

from .situations import Situation
from .world import STEP

OURS = tuple(sorted(RULES.glob("*.yml")))
LOOK = 30  # seconds from look to look
SILENT = ("info", "none")
Labels = dict[str, str]
INHIBITIONS = yaml.safe_load((PROJECT / "alertmanager" / "alertmanager.yml").read_text())["inhibit_rules"]


@dataclass
class Result:
    situation: Situation
    heard: list[str] = field(default_factory=list)
    """Alerts that were sent, in their order; twice what came twice."""
    first: str = ""
    """The alert that fired first after the beginning."""
    minutes: float | None = None
    """From the beginning until then."""

    @property
    def in_time(self) -> bool:
        return self.minutes is not None and self.minutes <= self.situation.late


def play(situations: list[Situation], rules: tuple[Path, ...], inhibited: bool = True) -> Iterator[Result]:
    with in_parallel() as pool:
        yield from pool.map(lambda one: _play(one, rules, inhibited), situations)


def needed(rules: tuple[Path, ...]) -> list[dict[str, Any]]:
    """The groups of these files without the recordings that no alert needs."""
    groups = [group for file in rules for group in yaml.safe_load(file.read_text())["groups"]]
    every = [rule for group in groups for rule in group["rules"]]
    read = [rule for rule in every if "alert" in rule]
    names: set[str] = set()
    while read:
        names |= (new := {name for rule in read for name in metrics(str(rule["expr"]))} - names)
        read = [rule for rule in every if rule.get("record") in new]
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if "alert" in rule or rule["record"] in names]
        group.pop("interval", None)
    return [group for group in groups if group["rules"]]


def _play(situation: Situation, rules: tuple[Path, ...], inhibited: bool) -> Result:
    groups = needed(rules)
    looks = range(round(situation.start * 60) - 2 * LOOK, round(situation.minutes * 60), LOOK)
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{STEP}s",
        "group_eval_order": sorted(
            dict.fromkeys(group["name"] for group in groups), key=lambda name: not _records(name)
        ),
        "tests": [
            {
                "name": situation.name,
                "interval": f"{STEP}s",
                "input_series": situation.world().input_series(),
                "promql_expr_test": [
                    {
                        "expr": 'ALERTS{alertstate="firing", alertname!="Watchdog"}',
                        "eval_time": f"{look}s",
                        "exp_samples": [{"labels": "nothing", "value": 0}],
                    }
                    for look in looks
                ],
            }
        ],
    }
    with tempfile.TemporaryDirectory(prefix="sightline-replay-") as folder:
        (Path(folder) / "rules.yml").write_text(yaml.safe_dump({"groups": groups}, sort_keys=False))
        test = Path(folder) / "test.yml"
        test.write_text(yaml.safe_dump(document))
        run = promtool("test", "rules", test)
    seen = dict(_seen(run.stdout + run.stderr))
    assert seen or "got: nil" in run.stdout + run.stderr, run.stdout + run.stderr
    return _judge(situation, [(look, seen.get(look, [])) for look in looks], inhibited)


def _records(group: str) -> bool:
    return bool(re.search(r"record|slo|\.rules$", group))


def _seen(output: str) -> Iterator[tuple[int, list[Labels]]]:
    """(seconds, alerts that fire) from what promtool says it got."""
    for time, got in re.findall(r"time: (\S+),\n\s+exp: .*\n\s+got: (.*)", output):
        alerts = [dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', part)) for part in re.findall(r"\{([^}]*)\}", got)]
        yield _seconds(time), alerts


def _seconds(duration: str) -> int:
    return sum(int(n) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[u] for n, u in re.findall(r"(\d+)([dhms])", duration))


def _judge(situation: Situation, looks: list[tuple[int, list[Labels]]], inhibited: bool) -> Result:
    result = Result(situation)
    before = {_key(alert) for _, alerts in looks[:2] for alert in alerts} if situation.late else set()
    waiting: set[str] = set()
    sent: set[str] = set()
    for time, alerts in looks:
        new = [alert for alert in alerts if _key(alert) not in before]
        if new and result.minutes is None:
            result.first = new[0]["alertname"]
            result.minutes = time / 60 - situation.start
        loud = {
            _key(alert): alert["alertname"] + alert.get("window", "")
            for alert in new
            if alert.get("severity") not in SILENT and not (inhibited and muted(alert, alerts))
        }
        result.heard += [name for key, name in loud.items() if key in waiting and key not in sent]
        sent = {key for key in loud if key in sent or key in waiting}
        waiting = loud.keys() - sent
    return result


def _key(alert: Labels) -> str:
    return str(sorted(item for item in alert.items() if item[0] not in ("__name__", "alertstate")))


def matches(matchers: list[str], labels: Labels) -> bool:
    """Whether Alertmanager's matchers, written in UTF-8 syntax with one operator each, accept the labels."""
    for matcher in matchers:
        for part in re.findall(r'\w+(?:=~|!~|!=|=)"[^"]*"', matcher):
            name, operator, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', part).groups()  # type: ignore[union-attr]
            own = labels.get(name, "")
            equal = re.fullmatch(value, own) is not None if "~" in operator else value == own
            if equal != (operator in ("=", "=~")):
                return False
    return True


def muted(alert: Labels, firing: list[Labels]) -> bool:
    """Whether a firing alert inhibits this one; none inhibits itself (what matches both sides)."""
    for rule in INHIBITIONS:
        if not matches(rule["target_matchers"], alert):
            continue
        for source in firing:
            both = matches(rule["target_matchers"], source) and matches(rule["source_matchers"], alert)
            if (
                matches(rule["source_matchers"], source)
                and not both
                and all(source.get(label, "") == alert.get(label, "") for label in rule["equal"])
            ):
                return True
    return False


HEAD = f"{'situation':<58}{'minutes':>8}{'heard':>7}  alerts"


def line(result: Result) -> str:
    minutes = "-" if result.minutes is None else f"{result.minutes:.1f}"
    late = " LATE" if result.situation.late and not result.in_time else ""
    alerts = " ".join(result.heard) or f"({result.first})"
    return f"{result.situation.name:<58}{minutes:>8}{len(result.heard):>7}  {alerts}{late}"


def summary(results: list[Result]) -> str:
    faults = [result for result in results if result.situation.late]
    healthy = [result for result in results if not result.situation.late]
    detected = [result for result in faults if result.minutes is not None]
    minutes = statistics.median(result.minutes for result in detected if result.minutes is not None) if detected else 0
    heard = sum(len(result.heard) for result in detected) / max(len(detected), 1)
    false = sum(bool(result.heard) for result in healthy)
    late = sum(not result.in_time for result in detected)
    return (
        f"{len(detected)} of {len(faults)} faults detected ({late} too late), median {minutes:.1f} minutes, "
        f"{heard:.2f} heard for each; false alarms in {false} of {len(healthy)} healthy situations"
    )
