"""Every rule is valid, tested, explained; the unit tests themselves are promtool's, in prometheus/tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ops import configs, secrets
from prometheus.src.settings import seconds
from tests.prometheus.rules import (
    RUNBOOKS,
    UNIT_TESTS,
    Rule,
    alerts,
    expected_labels,
    in_parallel,
    load_rules,
    metrics,
    promtool,
    recordings,
    runbook_queries,
    unit_tests,
    with_needed_rules,
)

pytestmark = pytest.mark.check

SEVERITIES = {"critical", "warning", "info", "none"}
AREAS = {"host", "http", "llm", "database", "monitoring"}
ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
ALERTS = alerts()
RUNBOOK = {file.stem: file for file in RUNBOOKS.glob("*.md") if file.stem != "README"}


def named(rule: Rule) -> str:
    return rule.name + rule.labels.get("window", "")


def test_prometheus_accepts_configuration_and_rules(tmp_path: Path) -> None:
    """With all that the configuration names: rules, target files, the token of the service's /metrics."""
    secrets.generate(tmp_path / "secrets")
    folder = configs.link("prometheus", tmp_path / "config", tmp_path / "secrets")
    configs.write_targets(folder, {})
    check = promtool("check", "config", folder / "prometheus.yml")
    assert check.returncode == 0, check.stdout + check.stderr


def test_unit_tests_pass(tmp_path: Path) -> None:
    files = sorted(UNIT_TESTS.glob("*.yml"))
    as_they_are = promtool("test", "rules", "--run=^$", *files)  # accepts them with their rules, and runs none
    assert as_they_are.returncode == 0, as_they_are.stdout + as_they_are.stderr
    files = [with_needed_rules(file, tmp_path) for file in files]
    with in_parallel() as pool:
        runs = list(pool.map(lambda file: promtool("test", "rules", file), files))
    failed = [f"{file.name}\n{run.stdout}{run.stderr}" for file, run in zip(files, runs, strict=True) if run.returncode]
    assert not failed, re.sub(r"\n{2,}", "\n", "\n".join(failed))


def drops_by_rounding(values: str) -> bool:
    """Whether a counter that stays at `0x4 0.1+0.1x9 1x5` is lower than the sum of its steps, as promtool adds them."""
    last = 0.0
    for start, step, times in re.findall(r"(?<!\S)([\d.]+)(?:\+([\d.]+))?(?:x(\d+))?(?!\S)", values):
        value = float(start)
        if 0 < last - value < 1e-6 * last:
            return True
        for _ in range(int(times or 0)):
            value += float(step or 0)
        last = value
    return False


def test_no_counter_of_a_unit_test_is_reset_by_rounding() -> None:
    """An increase would count everything once more; `flat()` in the templates is for these."""
    assert drops_by_rounding("0x4 0.44+0.44x19 8.8x29")
    assert not drops_by_rounding("0x4 0.44+0.44x19 8.8000001x29 0x5")
    series = [
        (file.name, one["series"], str(one["values"]))
        for file, test in unit_tests()
        for one in test.get("input_series", ())
    ]
    assert [(file, name, values) for file, name, values in series if drops_by_rounding(values)] == []


def test_every_alert_is_tested(summarize: Callable[[str, str], None]) -> None:
    """Firing with exact labels and annotations; silent before and after. The Watchdog alone is never silent."""
    fires: set[str] = set()
    silent: set[str] = set()
    for _, test in unit_tests():
        for check in test.get("alert_rule_test", ()):
            (fires if check.get("exp_alerts") else silent).add(check["alertname"])
    names = {rule.name for rule in ALERTS}
    summarize("rules", f"{len(names)} alerts, {len(fires)} tested to fire, {len(silent)} to be silent before and after")
    told_apart = {(rule.name, rule.labels.get("window")) for rule in ALERTS}
    assert len(told_apart) == len(ALERTS), "two alerts of the same name"
    wrong = [f"no unit test sees {name} firing" for name in sorted(names - fires)]
    wrong += [f"no unit test sees {name} silent" for name in sorted(names - silent - {"Watchdog"})]
    wrong += [f"a unit test is of {name}, which is no alert" for name in sorted((fires | silent) - names)]
    assert not wrong, "\n".join(wrong)
    assert "Watchdog" not in silent


def test_every_recording_rule_is_tested(summarize: Callable[[str, str], None]) -> None:
    tested = {
        name
        for _, test in unit_tests()
        for check in test.get("promql_expr_test", ())
        if check.get("exp_samples")
        for name in metrics(check["expr"])
    }
    names = {rule.name for rule in recordings()}
    summarize("rules", f"{len(names)} recorded series, {len(names & tested)} tested")
    assert names <= tested, f"not tested: {names - tested}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    names = {rule.name for rule in ALERTS}
    wrong = [f"docs/runbooks/{name}.md is missing" for name in sorted(names - RUNBOOK.keys())]
    wrong += [f"docs/runbooks/{name}.md belongs to no alert" for name in sorted(RUNBOOK.keys() - names)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_alert_has_labels_summary_description_and_links(alert: Rule) -> None:
    labels, says = alert.labels, alert.annotations
    runbook = f"{{{{ with $externalLabels.runbooks_url }}}}{{{{ . }}}}/{alert.name}.md{{{{ end }}}}"
    dashboard = r"{{ with \$externalLabels.grafana_url }}{{ . }}/d/sightline-.*{{ end }}"
    musts = {
        "the name is in CamelCase": re.fullmatch(r"([A-Z][a-z0-9]*)+", alert.name),
        "labels are severity and area": set(labels) - {"window"} == {"severity", "area"},
        f"severity is one of {sorted(SEVERITIES)}": labels.get("severity") in SEVERITIES,
        f"area is one of {sorted(AREAS)}": labels.get("area") in AREAS,
        f"annotations are {sorted(ANNOTATIONS)}": set(says) == ANNOTATIONS,
        "a summary is a fixed sentence": "{{" not in says.get("summary", ""),
        f"runbook_url is {runbook}": says.get("runbook_url") == runbook,
        f"dashboard_url is like {dashboard}": re.fullmatch(dashboard, says.get("dashboard_url", "")),
    }
    wrong = [must for must, holds in musts.items() if not holds]
    assert not wrong, "\n".join((f"of {alert.name}:", *wrong))


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_annotations_print_only_labels_that_exist(alert: Rule) -> None:
    printed = set(re.findall(r"(?<!with )\$labels\.(\w+)", "".join(alert.annotations.values())))
    for labels in expected_labels().get(alert.name, ()):  # none: test_every_alert_is_tested names it
        assert printed <= labels.keys(), f"not on the alert: {printed - labels.keys()}"


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_runbook_is_complete(alert: Rule) -> None:
    assert alert.name in RUNBOOK, f"docs/runbooks/{alert.name}.md is missing"
    text = RUNBOOK[alert.name].read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert len(section.split()) >= 5, f"a section of {alert.name} says next to nothing"


SPANS = {"half a minute": 30, "a minute": 60, "a minute and a half": 90}
MINUTES = {"two": 2, "three": 3, "five": 5, "seven": 7, "ten": 10, "20": 20}
SPANS |= {f"{word} minutes": 60 * number for word, number in MINUTES.items()}


def test_runbooks_name_the_time_that_a_condition_holds_before_it_alerts() -> None:
    """ "Has been above X for two minutes" is `for: 2m`; windows are "within" or "over" theirs."""
    wrong = []
    for alert in [alert for alert in ALERTS if alert.name in RUNBOOK]:
        meaning = RUNBOOK[alert.name].read_text().partition("## Impact")[0]
        hold = seconds(alert.definition.get("for", "0s"))
        said = re.findall(r"(?<!firing )\b[Ff]or ((?:half )?an? minute(?: and a half)?|\w+ minutes)\b", meaning)
        wrong += [f"{alert.name}: for {span}, and not for {hold} s" for span in said if SPANS.get(span) != hold]
    assert wrong == []


def test_queries_of_the_runbooks_are_valid(tmp_path: Path) -> None:
    queries = runbook_queries()
    assert len(queries) >= len(ALERTS) / 2
    # Each as the expression of a rule, as promtool then reads all of them in one go; it names a rule by its group.
    groups = [
        {"name": f"{number} {name}", "rules": [{"record": "query", "expr": query}]}
        for number, (name, query) in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    run = promtool("check", "rules", "--lint=none", file)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(queries)} rules found" in run.stdout


def test_recorded_names_follow_the_convention() -> None:
    assert [r.name for r in recordings() if not re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", r.name)] == []


def test_recorded_names_are_free_beside_other_tools() -> None:
    """Sloth (slo:...), Pyrra (http_requests:burnrate5m), the node mixin and kube-prometheus in the same Prometheus."""
    theirs = (
        r"slo:.*|\w+:(burnrate|increase|rate)\w+|(cluster|count):.*"
        r"|instance:node_(num_cpu:sum|cpu:.*|cpu_utilisation:.*|load1_per_cpu:.*|memory_utilisation:.*)"
        r"|instance:node_(vmstat_pgmajfault:rate.*|network_\w+:rate.*)|instance_device:node_disk_io_time\w+:rate.*"
    )
    assert [rule.name for rule in recordings() if re.fullmatch(theirs, rule.name)] == []
    assert re.fullmatch(theirs, "slo:objective:ratio")  # was ours once


def test_recorded_names_contain_the_window() -> None:
    wrong = []
    for rule in recordings():
        windows = set(re.findall(r"\[(\w+)(?::\w+)?\]", rule.expr))
        if (named := re.search(r"(?:rate|increase|sum)(\d+[mhd])$", rule.name)) and not windows <= {named[1]}:
            wrong.append(rule.name)
    assert wrong == []


def test_rules_and_runbooks_read_only_recorded_series_that_exist() -> None:
    names = {rule.name for rule in recordings()}
    readers = [*((rule.name, rule.expr) for rule in load_rules()), *runbook_queries()]
    unknown = {
        reader: missing for reader, expr in readers if (missing := {n for n in metrics(expr) if ":" in n} - names)
    }
    assert unknown == {}


def test_what_a_rule_reads_of_its_own_group_is_recorded_before_it() -> None:
    """Rules of a group run in order: one that stands too early would read what was recorded the last time."""
    late, seen, group = [], set[str](), ""
    for rule in load_rules():
        if rule.group != group:
            group, seen = rule.group, set()
            own = {other.name for other in recordings() if other.group == group}
        late += [(rule.name, name) for name in sorted((metrics(rule.expr) & own) - seen)]
        seen.add(rule.name)
    assert late == []
