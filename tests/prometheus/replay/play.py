"""Replays situations through promtool: which alerts fire when, and which of them Alertmanager would send.

promtool evaluates the rules as Prometheus does, and prints the content of ALERTS at a time for which a test expects
something else. From the alerts that fire and the inhibitions of alertmanager.yml follows how many were sent: an alert
that has fired for the 30 s of group_wait without being muted; one that comes back is sent again.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ops.paths import PROJECT
from tests.alertmanager.config import matches
from tests.prometheus.rules import RULES, in_parallel, metrics, promtool

from .situations import Situation
from .world import World, healthy

OURS = tuple(sorted(RULES.glob("*.yml")))
LOOK = 15  # seconds between checks, as between evaluations of the rules
SILENT = ("info", "none")
Labels = dict[str, str]
Group = dict[str, Any]
ALERTMANAGER = yaml.safe_load((PROJECT / "alertmanager" / "alertmanager.yml").read_text())
INHIBITIONS = ALERTMANAGER["inhibit_rules"]


def _seconds(duration: str) -> int:
    return sum(int(n) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[u] for n, u in re.findall(r"(\d+)([dhms])", duration))


GROUP_WAIT, GROUP_INTERVAL = (_seconds(ALERTMANAGER["route"][key]) for key in ("group_wait", "group_interval"))


@dataclass
class Result:
    situation: Situation
    sent: list[str] = field(default_factory=list)
    """Alerts that were sent, in order, including repeated ones."""
    messages: int = 0
    """In how many messages: Alertmanager groups them, and sends what joins a group every five minutes."""
    first: str = ""
    """The alert that fired first after the beginning."""
    minutes: float | None = None
    """From the beginning until then."""

    @property
    def in_time(self) -> bool:
        return self.minutes is not None and self.minutes <= self.situation.late


def play(situations: list[Situation], rules: tuple[Path, ...], inhibited: bool = True) -> Iterator[Result]:
    """What the rules make of each situation, in their order."""
    groups = load(rules)
    size = min(12, -(-len(situations) // (os.cpu_count() or 1)))
    batches = [situations[at : at + size] for at in range(0, len(situations), size)]
    with in_parallel() as pool:
        for results in pool.map(lambda batch: _play(batch, groups, inhibited), batches):
            yield from results


def load(rules: tuple[Path, ...]) -> list[Group]:
    return [group for file in rules for group in yaml.safe_load(file.read_text())["groups"]]


def affected(groups: list[Group], changed: set[str], alerts: str = ".*") -> list[Group]:
    """The groups with the alerts (of these names) that read one of these series, and the recordings that they need.

    All others do what they do in an ordinary hour, which is a situation of its own.
    """
    rules = [rule for group in groups for rule in group["rules"]]
    records: dict[str, set[str]] = {}
    for rule in rules:
        if "record" in rule:
            records.setdefault(rule["record"], set()).update(metrics(str(rule["expr"])))

    def read(expr: str) -> set[str]:
        """Names of all series that an expression reads, recorded and raw."""
        found: set[str] = set()
        new = metrics(expr)
        while new:
            found |= new
            new = {name for one in new for name in records.get(one, ())} - found
        return found

    reads = {id(rule): read(str(rule["expr"])) for rule in rules if re.fullmatch(alerts, rule.get("alert", "\n"))}
    chosen = {key for key, names in reads.items() if names & changed}
    needed = {name for key in chosen for name in reads[key]}
    kept = [
        {
            "name": group["name"],  # without its interval, which promtool does not know either
            "rules": [rule for rule in group["rules"] if id(rule) in chosen or rule.get("record") in needed],
        }
        for group in groups
    ]
    return [group for group in kept if group["rules"]]


def _play(situations: list[Situation], groups: list[Group], inhibited: bool) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="sightline-replay-") as folder:
        files = [_write(one, groups, Path(folder) / str(number)) for number, one in enumerate(situations)]
        output = promtool("test", "rules", *files, merged=True).stdout
    parts = re.split(r"^  (?:SUCCESS|FAILED:)$", output, flags=re.MULTILINE)[1:]  # only 2.53 names the files
    assert len(parts) == len(situations), output
    results = []
    for situation, part in zip(situations, parts, strict=True):
        seen = dict(_seen(part))
        assert seen or "got: nil" in part, part
        results.append(_judge(situation, [(look, seen.get(look, [])) for look in _looks(situation)], inhibited))
    return results


def _looks(situation: Situation) -> range:
    look = round(max(LOOK, situation.interval))
    return range(round(situation.start * 60) - 2 * look, round(situation.minutes * 60), look)


def _write(situation: Situation, groups: list[Group], folder: Path) -> Path:
    """A test of promtool's that expects nothing, so that it says what it got."""
    changed, world = changed_by(situation)
    own = affected(groups, changed, situation.alerts)
    read = {name for group in own for rule in group["rules"] for name in metrics(str(rule["expr"]))}
    world = replace(world, series={name: v for name, v in world.series.items() if name.partition("{")[0] in read})
    order = sorted(dict.fromkeys(group["name"] for group in own), key=lambda name: not _records(name))
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{situation.interval}s",
        "group_eval_order": order,
        "tests": [
            {
                "name": situation.name,
                "interval": f"{situation.step}s",
                "input_series": world.input_series(),
                "promql_expr_test": [
                    {
                        "expr": 'ALERTS{alertstate="firing", alertname!="Watchdog"}',
                        "eval_time": f"{look}s",
                        "exp_samples": [{"labels": "nothing", "value": 0}],
                    }
                    for look in _looks(situation)
                ],
            }
        ],
    }
    folder.mkdir()
    (folder / "rules.yml").write_text(json.dumps({"groups": own}))  # JSON is YAML, and much faster to write
    (folder / "test.yml").write_text(json.dumps(document))
    return folder / "test.yml"


def changed_by(situation: Situation) -> tuple[set[str], World]:
    """The metrics that a situation changes (all, if none), and its world."""
    world = situation.world()
    own, ordinary = world.series, healthy(situation.minutes).series
    differing = [name for name in own.keys() | ordinary.keys() if own.get(name) != ordinary.get(name)]
    return {name.partition("{")[0] for name in differing or own}, world


def _records(group: str) -> bool:
    return bool(re.search(r"record|slo|\.rules$", group))


def _seen(output: str) -> Iterator[tuple[int, list[Labels]]]:
    """(seconds, alerts that fire) from what promtool says it got."""
    for time, got in re.findall(r"time: (\S+),\n\s+exp: .*\n\s+got: (.*)", output):
        alerts = [dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', part)) for part in re.findall(r"\{([^}]*)\}", got)]
        yield _seconds(time), alerts


def _judge(situation: Situation, looks: list[tuple[int, list[Labels]]], inhibited: bool) -> Result:
    result = Result(situation)
    before = {_key(alert) for _, alerts in looks[:2] for alert in alerts} if situation.late else set()
    since: dict[str, int] = {}  # when what could be sent began to fire
    sent: set[str] = set()
    groups: dict[str, int] = {}
    messages: set[tuple[str, int]] = set()
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
        since = {key: since.get(key, time) for key in loud}
        sent &= loud.keys()
        for alert in new:
            key = _key(alert)
            if key in loud and key not in sent and time - since[key] >= GROUP_WAIT:
                sent.add(key)
                result.sent.append(loud[key])
                first = groups.setdefault(group(alert), time)
                messages.add((group(alert), -(-(time - first) // GROUP_INTERVAL)))
    result.messages = len(messages)
    return result


def _key(alert: Labels) -> str:
    return str(sorted(item for item in alert.items() if item[0] not in ("__name__", "alertstate")))


def group(alert: Labels) -> str:
    """The group of Alertmanager's, by its route and the values of what that groups by, in which an alert is sent."""
    route = ALERTMANAGER["route"]
    by = route["group_by"]
    while children := [one for one in route.get("routes", ()) if matches(one["matchers"], alert)]:
        route = children[0]
        by = route.get("group_by", by)
    return str((route.get("matchers"), [alert.get(label, "") for label in by]))


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


HEAD = f"{'situation':<58}{'minutes':>8}{'sent':>7}  alerts"


def line(result: Result) -> str:
    minutes = "-" if result.minutes is None else f"{result.minutes:.2f}"
    late = " LATE" if result.situation.late and not result.in_time else ""
    alerts = " ".join(result.sent) or f"({result.first})"
    return f"{result.situation.name:<58}{minutes:>8}{len(result.sent):>7}  {alerts}{late}"
