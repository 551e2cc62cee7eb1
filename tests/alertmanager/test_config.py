"""Routes, inhibitions and the guide's ways to switch a receiver on, asked of amtool and promtool: no server runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ops.paths import PROJECT
from tests.alertmanager.config import (
    CONFIG,
    FOLDER,
    NULL,
    RECEIVERS,
    Json,
    amtool,
    as_it_comes,
    matches,
    receiver_of,
    sent_elsewhere,
    switched_on,
)
from tests.prometheus.rules import UNIT_TESTS, alerts, expected_labels, needed_rules, promtool


@pytest.mark.check
def test_alertmanager_accepts_the_configuration() -> None:
    """That of this checkout, with whatever is switched on."""
    check = amtool("check-config", FOLDER / "alertmanager.yml")
    assert check.returncode == 0, check.stdout + check.stderr


def file_of(config: str, folder: Path) -> Path:
    """The configuration as a file beside the templates."""
    if not (folder / "templates").exists():
        (folder / "templates").symlink_to(FOLDER / "templates")
    (folder / "alertmanager.yml").write_text(config)
    return folder / "alertmanager.yml"


def test_by_default_no_notification_is_sent(tmp_path: Path) -> None:
    for alert in alerts():
        assert receiver_of(file_of(CONFIG, tmp_path), alertname=alert.name, **alert.labels) == "null"
    [null] = [receiver for receiver in yaml.safe_load(CONFIG)["receivers"] if receiver["name"] == "null"]
    assert null.keys() == {"name"}
    assert "no notification is sent" in " ".join(line.strip("# ") for line in CONFIG.splitlines()[:8])


@pytest.mark.check
def test_secrets_are_files() -> None:
    config = yaml.safe_load(CONFIG)
    secret = re.compile(r"(url|key|password|token|secret)(_file)?$")
    settings = [config["global"], *(s for r in config["receivers"] for v in r.values() if v != r["name"] for s in v)]
    public = ("client_url", "icon_url")
    found = [(n, value) for own in settings for n, value in own.items() if secret.search(n) and n not in public]
    assert found
    for name, value in found:
        assert name.endswith("_file"), name
        assert re.fullmatch(r"secrets/\w+", value), value


def alerts_of(severity: str, *areas: str) -> list[dict[str, str]]:
    return [{"severity": severity, "area": area} for area in areas]


OURS, OTHERS = ("http", "llm", "database"), ("host", "monitoring")


@pytest.mark.parametrize(
    ("config", "labels", "others"),
    [
        (
            lambda receiver: switched_on('severity="critical"', receiver),
            alerts_of("critical", *OURS, *OTHERS),  # a full disk pages on-call, too
            [*alerts_of("warning", *OURS, *OTHERS), *alerts_of("info", "http")],
        ),
        (
            lambda receiver: switched_on('severity="warning"', receiver),
            alerts_of("warning", *OURS, *OTHERS),
            [*alerts_of("critical", *OURS, *OTHERS), *alerts_of("info", "http")],
        ),
        (
            lambda receiver: sent_elsewhere("critical", receiver),
            alerts_of("critical", *OTHERS),
            [*alerts_of("critical", *OURS), *alerts_of("warning", *OTHERS)],
        ),
        (
            lambda receiver: sent_elsewhere("warning", receiver),
            alerts_of("warning", *OTHERS),
            [*alerts_of("warning", *OURS), *alerts_of("critical", *OTHERS)],
        ),
    ],
    ids=["critical", "warning", "critical elsewhere", "warning elsewhere"],
)
def test_one_line_switches_a_receiver_on(
    config: Callable[[str], str], labels: list[dict[str, str]], others: list[dict[str, str]], tmp_path: Path
) -> None:
    for receiver in RECEIVERS:
        file = file_of(config(receiver), tmp_path)
        assert amtool("check-config", file).returncode == 0
        assert as_it_comes(file.read_text()) == CONFIG, "all other tests are of the configuration as it comes"
        assert {receiver_of(file, **own) for own in labels} == {receiver}
        assert {receiver_of(file, **other) for other in others} == {"null"}


@pytest.mark.check
def test_the_watchdog_goes_to_the_heartbeat_alone(tmp_path: Path) -> None:
    config = file_of(switched_on('alertname="Watchdog"', "heartbeat"), tmp_path)
    assert receiver_of(config, alertname="Watchdog", severity="none", area="monitoring") == "heartbeat"
    assert receiver_of(config, alertname="TargetDown", severity="warning", area="monitoring") == "null"


@pytest.mark.check
def test_receivers_of_any_name_are_switched_off_for_the_other_tests() -> None:
    assert as_it_comes(switched_on('severity="critical"', "on-call")) == CONFIG
    both = "  - {name: chat-and-pager, slack_configs: *slack, pagerduty_configs: *pagerduty}\n"
    assert as_it_comes(switched_on('severity="critical"', "chat-and-pager") + both) == CONFIG


def test_two_receivers_at_once_as_in_the_guide(tmp_path: Path) -> None:
    """docs/notifications.md: one receiver with the parts of two."""
    guide = " ".join((PROJECT / "docs" / "notifications.md").read_text().split())
    anchors = {name: f"{name}: &{name.partition('_')[0]}" for name in ("slack_configs", "pagerduty_configs")}
    [both] = re.findall(r"`(- \{name: both.+?\})`", guide)
    config = switched_on('severity="critical"', "both").rstrip() + f"\n  {both}\n"
    for plain, anchored in anchors.items():
        assert f"`{anchored}`" in guide
        config = config.replace(f"    {plain}:", f"    {anchored}", 1)
    file = file_of(config, tmp_path)
    check = amtool("check-config", file)
    assert check.returncode == 0, check.stdout + check.stderr
    assert receiver_of(file, severity="critical", area="http") == "both"
    receiver = yaml.safe_load(file.read_text())["receivers"][-1]
    assert {name for name in receiver if name != "name"} == anchors.keys()
    assert as_it_comes(config) == CONFIG


def test_tests_pass_with_receivers_switched_on(project_copy: Path) -> None:
    """In a copy of the project, with all that the guide describes; test_delivery.py knows nothing but CONFIG, too."""
    text = CONFIG
    for matcher, receiver in {"alertname=": "heartbeat", "severity=": "pagerduty"}.items():
        text = re.sub(rf"(matchers: \[{matcher}.+\]\n      receiver: ){NULL}", rf"\1{receiver}", text)
    child = '- matchers: [area=~"host|monitoring"]\n'
    text = text.replace(child, f"{child}          receiver: slack\n").replace("oncall@example.com", "us@example.org")
    assert text.count(f"receiver: {NULL}") == 1, "only the root's is left"
    (project_copy / "alertmanager" / "alertmanager.yml").write_text(text)
    # By their names, as a renamed test would run itself without end. The routes are as they come,
    # so what asks amtool of several of them asks of one.
    left_out = (
        test_tests_pass_with_receivers_switched_on,
        test_alerts_keep_the_location_labels_that_inhibitions_compare,
    )
    assert as_it_comes(text) == CONFIG.replace("oncall@example.com", "us@example.org")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-k",
            " and ".join((*(f"not {test.__name__}" for test in left_out), "not (one_line and (warning or elsewhere))")),
            Path(__file__).relative_to(PROJECT),
        ],
        cwd=project_copy,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


# Inhibition


INHIBITIONS = yaml.safe_load(CONFIG)["inhibit_rules"]
PLACE = {"environment": "staging", "region": "north"}  # labels of targets, for those who have several places
EVERY = [labels for own in expected_labels().values() for labels in own]


@pytest.mark.check
@pytest.mark.parametrize("rule", INHIBITIONS, ids=lambda rule: rule["source_matchers"][0])
def test_labels_that_must_be_equal_exist_on_both_sides(rule: Json) -> None:
    for side in ("source_matchers", "target_matchers"):
        matched = [labels for labels in EVERY if matches(rule[side], labels)]
        assert matched, f"{side} match no alert"
        for labels in matched:
            needed = set(rule["equal"]) - PLACE.keys()
            assert needed <= labels.keys(), f"{labels['alertname']} lacks {needed - labels.keys()}"


def write_test(test: Json, file: Path) -> None:
    """A unit test of the labels of alerts, with the rules that they need and no others: a fifth of the time."""
    rules = []
    for name, groups in needed_rules(test, UNIT_TESTS).items():
        for group in groups:
            group["rules"] = [{key: rule[key] for key in rule.keys() - {"annotations"}} for rule in group["rules"]]
        rules.append(file.with_suffix(f".{Path(name).stem}.rules"))
        rules[-1].write_text(yaml.dump({"groups": groups}, Dumper=yaml.CSafeDumper))
    file.write_text(yaml.dump({**test, "rule_files": list(map(str, rules))}, Dumper=yaml.CSafeDumper))


def test_alerts_keep_the_location_labels_that_inhibitions_compare(tmp_path: Path) -> None:
    """The alerts' own unit tests, with two labels more on every series."""
    placed = [rule for rule in INHIBITIONS if PLACE.keys() <= set(rule["equal"])]
    assert [rule for rule in INHIBITIONS if rule not in placed and "instance" not in rule["equal"]] == []
    names = {
        labels["alertname"]
        for rule in placed
        for side in ("source_matchers", "target_matchers")
        for labels in EVERY
        if matches(rule[side], labels)
    }
    proven = set()
    for file in sorted(UNIT_TESTS.glob("*.yml")):
        document = yaml.load(file.read_text(), yaml.CBaseLoader)  # as text: 0x19 is a series, no number
        for number, test in enumerate(document["tests"]):
            checks = [check for check in test.pop("alert_rule_test", ()) if check["alertname"] in names]
            test.pop("promql_expr_test", None)
            for given in test.get("input_series", ()):
                more = {name: value for name, value in PLACE.items() if f"{name}=" not in given["series"]}
                extra = "".join(f'{name}="{value}", ' for name, value in more.items())
                given["series"] = given["series"].replace("{", f"{{{extra}", 1)
            for check in checks:
                for alert in check.get("exp_alerts") or ():
                    alert["exp_labels"] = PLACE | alert["exp_labels"]
                    alert.pop("exp_annotations", None)
                    proven.add(check["alertname"])
            if checks:
                alone = {**document, "tests": [{**test, "alert_rule_test": checks}]}
                write_test(alone, tmp_path / f"{file.stem}-{number}.yml")
    assert proven == names
    run = promtool("test", "rules", *tmp_path.glob("*.yml"))
    assert run.returncode == 0, run.stdout + run.stderr
