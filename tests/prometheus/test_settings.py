"""prometheus/slo.toml: what it refuses, and that an edit and `make generate` are all that a change takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.paths import PROJECT
from prometheus.src.render import KINDS, humanize, humanize_duration, humanize_percentage, mean, rendered
from prometheus.src.settings import FILE, SETTINGS, SettingsError, load
from tests.prometheus.rules import document, promtool, with_needed_rules

TEXT = FILE.read_text()
# What CONTRIBUTING.md shows: objective, bound, streaming endpoint and threshold.
CHANGES = {
    r"^availability = .*": "availability = 99.5",
    r"^window = .*": 'window = "28d"',
    r"^seconds = .*": "seconds = 0.25",
    r"^streaming = .*": 'streaming = "/ask"',
    r"^query_seconds = [\d.]+": "query_seconds = 1",
}


@pytest.mark.check
def test_rules_and_unit_tests_are_the_generated_ones() -> None:
    command = [sys.executable, "-m", "prometheus.src", "--check"]
    check = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


def test_an_edit_and_one_command_change_everything(project_copy: Path, tmp_path: Path) -> None:
    """In a copy of the project: the tests of rules and dashboards pass, and no number is left behind."""
    text = TEXT
    for pattern, replacement in CHANGES.items():
        text, found = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert found == 1, pattern
    (project_copy / "prometheus" / "slo.toml").write_text(text)

    def run(*command: str) -> None:
        result = subprocess.run(command, cwd=project_copy, capture_output=True, text=True, timeout=1500)
        assert result.returncode == 0, result.stdout + result.stderr

    for generator in ("prometheus.src", "grafana.src"):  # what `make generate` runs
        run(sys.executable, "-m", generator)
    tests = ("-m", "check", "tests/prometheus/test_rules.py", "tests/grafana")
    run(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not unit_tests_pass", *tests)
    # Those that the edit does not touch test_rules.py runs anyway.
    touched = touched_unit_tests(project_copy / "prometheus")
    assert {"http.yml", "recording.yml", "slo.yml"} <= {file.name for file in touched}
    for file in touched:
        check = promtool("test", "rules", with_needed_rules(file, tmp_path))
        assert check.returncode == 0, check.stdout + check.stderr
    made = "".join(f.read_text() for kind in KINDS for f in (project_copy / "prometheus" / kind).glob("*.yml"))
    made += "".join(file.read_text() for file in (project_copy / "grafana" / "dashboards").glob("*.json"))
    made += (project_copy / "prometheus" / "prometheus.yml").read_text()
    assert 'regex: "/ask"' in made
    for old in ("vector(0.999)", "/chat", "budget of 30 days", "lasts exactly 30 days"):
        assert old not in made


def touched_unit_tests(folder: Path) -> list[Path]:
    """Those that are not the project's own, or read a file of rules that is not."""

    def same(file: Path) -> bool:
        return file.read_bytes() == (PROJECT / "prometheus" / file.relative_to(folder)).read_bytes()

    return [
        test
        for test in sorted((folder / "tests").glob("*.yml"))
        if not all(map(same, (test, *((test.parent / rules).resolve() for rules in document(test)["rule_files"]))))
    ]


def test_the_guide_shows_this_very_change() -> None:
    guide = (PROJECT / "CONTRIBUTING.md").read_text()
    for replacement in CHANGES.values():
        assert replacement in guide


@pytest.mark.parametrize(
    ("pattern", "replacement", "complaint"),
    [
        (r"^availability = .*", "availability = 0.999", "percentage"),
        (r"^availability = .*", "availability = 100", "availability is 100: must be a percentage from 50 to 99.999"),
        (r"^availability = .*", "availability = 99.99999", "to 99.999"),
        (r"^availability = .*", 'availability = "99.9%"', "is .99.9%.: should be a valid number"),
        (r"^availability = .*", "availability = nan", "to 99.999"),
        (r"^latency = .*", "latency = 99\nerrors = 98", "^objectives.errors is unknown$"),
        (r"^window = .*", 'window = "90d"', "objectives.window is '90d': must be 7d to 31d"),
        (r"^window = .*", 'window = "36h"', "must be 7d to 31d"),
        (r"^window = .*", "window = 30", "objectives.window is 30: should be a valid string"),
        (r"^\[objectives\]", "[slo]", "^objectives is missing\nslo is unknown$"),
        (r"^\[thresholds\]", "", "^thresholds is missing\n"),
        (r"^query_seconds = [\d.]+", "query_seconds = inf", "thresholds.query_seconds is inf"),
        (r"^disk_free_ratio = [\d.]+", "disk_free_ratio = 5", "must be a ratio below 1: 0.05 for 5 %"),
        (r"^availability = .*", "", "availability is missing"),
        (r"^availability = .*", "availability = high", "not TOML"),
        (r"^streaming = .*", 'streaming = "/chat("', "no regular expression"),
        (r"^streaming = .*", "streaming = 'a\"b'", "alternatives such as"),
        (r"^streaming = .*", 'streaming = "/chat | /ask"', "alternatives such as"),
        (r"^streaming = .*", 'streaming = ["/chat", "/ask"]', "endpoints.streaming: should be a valid string"),
        (r"^streaming = .*", 'streaming = "/v[12]/chat"', "alternatives such as"),
        (r"^streaming = .*", 'streaming = "/chat|"', "alternatives such as"),
        (r"^streaming = .*", 'streaming = "/chat|/healthz"', "/healthz is both streaming and ignored"),
        (r"^ignored = .*", 'ignored = "/metrics|/ch.*"', "/chat is both streaming and ignored"),
        (r"^min_bad_requests = .*", "min_bad_requests = -1", "greater than 0"),
        (r"^short = \"5m\"", 'short = "2h"', "no shorter"),
        (r"^short = \"5m\"", 'short = "five"', "burn.windows.short is 'five': must be a duration"),
        (r"^short = \"5m\"", 'short = "0m"', "whole minutes"),
        (r"^short = \"5m\"", 'short = "90s"', "whole minutes"),
        (r"^short = \"5m\"", "short = 5", "burn.windows.short is 5: should be a valid string"),
        (r"^long = \"30m\"", 'long = "1h"', "no two have the same length"),
        (r"^long = \"3d\"", 'long = "30d"', "30d is no shorter than objectives.window, 30d"),
        (r"^long = \"3d\"", "", "burn.windows.long is missing"),
        (r"^factor = 6", 'factor = 6\nseverty = "warning"', "burn.windows.severty is unknown"),
        (r"^min_bad_requests = 10", 'min_bad_requests = 10\nwindows = ["1h"]', "not TOML"),
        (r"^long = \"1h\"", 'long = "4d"', "longest window comes first"),
        (
            r"^severity = \"warning\"",
            'severity = "fatal"',
            "burn.windows.severity is 'fatal': should be 'critical', 'warning' or 'info'",
        ),
    ],
)
def test_invalid_values_are_reported_in_one_sentence(pattern: str, replacement: str, complaint: str) -> None:
    text, found = re.subn(pattern, replacement, TEXT, count=1, flags=re.MULTILINE)
    assert found
    with pytest.raises(SettingsError, match=complaint):
        load(text)


@pytest.mark.parametrize(
    ("pattern", "replacement", "complaint"),
    [
        (r"^query_seconds = ", "query_second = ", "thresholds.query_seconds is missing"),
        (r"^query_seconds = ", "mine = 5\nquery_seconds = ", "thresholds.mine is unknown: no rule in "),
    ],
)
def test_thresholds_are_those_that_rules_read(pattern: str, replacement: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        rendered(load(re.sub(pattern, replacement, TEXT, flags=re.MULTILINE)))


def test_all_thresholds_that_do_not_fit_are_named() -> None:
    for text, complaint, names in (
        (re.sub(r"(?m)^(query|scrape)_seconds = .*", "", TEXT), "is missing", ("query_seconds", "scrape_seconds")),
        (TEXT + "mine = 1\nyours = 2\n", "is unknown: no rule in prometheus/src/rules reads it", ("mine", "yours")),
    ):
        with pytest.raises(SettingsError) as error:
            rendered(load(text))
        assert str(error.value).splitlines() == [f"thresholds.{name} {complaint}" for name in names]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [("objectives = 99.9\n", "objectives must be a table"), ("", "objectives is missing")],
)
def test_a_table_is_one(table: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(table + re.sub(r"(?ms)^\[objectives\].*?(?=^\[latency)", "", TEXT))


def test_all_mistakes_are_named() -> None:
    text = TEXT.replace("latency = 99\n", "latency = 0.99\n").replace("query_seconds = 0.5", "query_seconds = -1")
    with pytest.raises(SettingsError) as error:
        load(text)
    assert str(error.value).splitlines() == [
        "objectives.latency is 0.99: must be a percentage from 50 to 99.999, such as 99.9",
        "thresholds.query_seconds is -1: should be greater than 0",
    ]


@pytest.mark.parametrize(
    ("windows", "complaint"),
    [("", "windows is missing"), ("windows = []\n", "at least one table"), ('windows = ["1h"]\n', "must be a table")],
)
def test_burn_windows_are_tables(windows: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(re.sub(r"(?ms)^\[\[burn.windows\]\].*?(?=^\[thresholds)", windows, TEXT))


def test_what_dashboards_and_runbooks_show_is_recorded_whatever_the_windows_are() -> None:
    settings = load(TEXT.replace('long = "1h"', 'long = "2h"').replace('short = "5m"', 'short = "10m"', 1))
    assert {"5m", "1h", "2h", "10m"} <= set(settings.spans)


def test_tests_and_checks_stop_at_a_mistake_with_one_line(tmp_path: Path) -> None:
    for name in ("app", "grafana", "ops", "tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    shutil.copytree(PROJECT / "prometheus", tmp_path / "prometheus")
    (tmp_path / "prometheus" / "slo.toml").write_text(re.sub(r"(?m)^seconds = .*", "", TEXT))
    command = (sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "check", "tests/prometheus", "tests/grafana")
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert (run.stdout, run.stderr) == ("", "prometheus/slo.toml: latency.seconds is missing\n")


def test_a_window_has_the_general_number_of_bad_requests_or_its_own() -> None:
    general = re.sub(r"(?m)(?<=^factor = 100)(.*\n)min_bad_requests = .*\n", r"\1", TEXT)
    assert general.count("min_bad_requests = ") == TEXT.count("min_bad_requests = ") - 1
    assert {window.min_bad_requests for window in load(general).windows} == {load(general).min_bad_requests}
    own = general.replace("factor = 100", "min_bad_requests = 7\nfactor = 100")
    settings = load(own)
    (window,) = (window for window in settings.windows if window.long == "5m")
    least = {name: settings.least_bad(objective, window) for name, objective in settings.objectives.items()}
    assert least == {"availability": 7, "latency": settings.min_bad_requests}


def test_a_bound_that_is_no_bucket_is_refused(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "prometheus", tmp_path / "prometheus")
    (tmp_path / "app").symlink_to(PROJECT / "app")
    (tmp_path / "prometheus" / "slo.toml").write_text(re.sub(r"(?m)^seconds = .*", "seconds = 0.3", TEXT))
    run = subprocess.run([sys.executable, "-m", "prometheus.src"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("prometheus/slo.toml: latency.seconds must be one of 0.005, ")
    assert run.stderr.endswith("60\n")
    assert run.stderr.count("\n") == 1


def test_all_templates_that_are_no_yaml_are_named(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "prometheus", tmp_path / "prometheus")
    (tmp_path / "app").symlink_to(PROJECT / "app")
    for name, line in (("http", "- alert: HttpEndpointSlow"), ("llm", "- alert: LlmSlow")):
        file = tmp_path / "prometheus" / "src" / "rules" / f"{name}.yml"
        file.write_text(file.read_text().replace(f"      {line}\n", f"     {line}\n"))
    run = subprocess.run([sys.executable, "-m", "prometheus.src"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "prometheus/src/rules/http.yml is no YAML: did not find expected key, at '- alert: HttpEndpointSlow'",
        "prometheus/src/rules/llm.yml is no YAML: did not find expected key, at '- alert: LlmSlow'",
    ]


def test_numbers_print_as_prometheus_prints_them() -> None:
    """As in promtool's output for the functions of the same names."""
    assert humanize_percentage(0.10909) == "10.91%"
    assert [humanize(value) for value in (15.12, 1234, 2_000_000)] == ["15.12", "1.234k", "2M"]
    assert [humanize(value) for value in (0, 0.2625, 0.00005)] == ["0", "262.5m", "50u"]
    assert [humanize_duration(value) for value in (0.136, 6.4, 380, 3600, 90061)] == [
        "136ms",
        "6.4s",
        "6m 20s",
        "1h 0m 0s",
        "1d 1h 1m 1s",
    ]


def test_mean_of_pieces() -> None:
    assert mean([(60, 8), (120, 2)], "1m") == 8
    assert mean([(60, 8), (120, 2)], "2m") == 5
    assert SETTINGS.page_factor == min(w.factor for w in SETTINGS.windows if w.long == "1h")
