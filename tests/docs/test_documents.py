"""The documents without running anything: what they link to, name and quote exists, and every command is known."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable

import pytest

from loadtest.settings import Settings
from ops.drills.catalogue import DRILLS
from ops.paths import PROJECT
from ops.programs import find
from tests.core_metrics import QUERIES
from tests.docs.commands import (
    BY_ANOTHER_TEST,
    COMMANDS,
    COMPOSE,
    DOCUMENTS,
    MAKEFILE,
    MISSING,
    ONLY_CHECKED,
    README,
    RUN_HERE,
)
from tests.grafana.dashboards import DASHBOARDS, panels, targets
from tests.prometheus.rules import alerts

pytestmark = pytest.mark.check
by_document = pytest.mark.parametrize("document", dict.fromkeys(command.document for command in COMMANDS))


def test_every_command_is_run_or_known(summarize: Callable[[str, str], None]) -> None:
    run = [c for c in COMMANDS if c.text in RUN_HERE and c.text not in MISSING]
    elsewhere = [c for c in COMMANDS if c not in run and c.document in BY_ANOTHER_TEST and (c.in_block or not c.reason)]
    rest = [c for c in COMMANDS if c not in (*run, *elsewhere) and c.text not in MISSING]
    unknown = [f"{c.document}: {c.text}" for c in rest if c.reason is None]
    assert not unknown, f"say in tests/docs/commands.py how these are to be tested: {unknown}"
    assert not (gone := RUN_HERE - {c.text for c in COMMANDS}), f"no document has these any more: {gone}"

    title = "commands of the documents"
    summarize(title, f"run here: {len(run)}")
    for file in sorted(set(BY_ANOTHER_TEST.values())):
        summarize(title, f"run by {file}: {len(elsewhere)}")
    for reason in dict.fromkeys([*ONLY_CHECKED.values(), *MISSING.values()]):
        texts = dict.fromkeys(
            [c.text for c in rest if c.reason == reason] + [m for m in MISSING if MISSING[m] == reason]
        )
        if texts:
            why = f"this machine has no {reason}" if reason in MISSING.values() else reason
            summarize(title, f"only checked: {len(texts)} ({why})")
            for line in textwrap.wrap("; ".join(texts), 116):
                summarize(title, f"    {line}")


def test_no_docker_command_waits_for_ever() -> None:
    """As tests/ops/docker/test_documents.py runs each of them."""
    endless = re.compile(
        r"docker (compose )?(stats\b(?!.* --no-stream)|logs\b.* (-f|--follow)\b|events\b)"
        r"|docker compose up\b(?!.* (-d|--detach)\b)"
    )
    assert not [f"{command.document}: {command.text}" for command in COMMANDS if endless.match(command.text)]


@by_document
def test_what_the_commands_name_exists(document: str) -> None:
    for command in (command for command in COMMANDS if command.document == document):
        syntax = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, text=True)
        assert syntax.returncode == 0, syntax.stderr
        words = shlex.split(command.text) if command.text.count("'") % 2 == 0 else command.text.split()
        own = list(itertools.takewhile(lambda word: word not in ("|", "<"), words))
        if words[0] == "make":
            _check_make(own[1:])
        if words[:2] == ["docker", "compose"]:
            _check_compose(own[2:])
        if words[0] in ("amtool", "promtool"):
            subcommand = [word for word in words[1:3] if re.fullmatch("[a-z-]+", word)]
            assert (
                subprocess.run([find(words[0])[words[0]], *subcommand, "--help"], capture_output=True).returncode == 0
            )
        for path in re.findall(r"(?<![\w./:$-])((?:prometheus|alertmanager|docs|tests)/[\w./-]+\.\w+)", command.text):
            assert document in BY_ANOTHER_TEST or (PROJECT / path).exists(), path


def _check_make(words: list[str]) -> None:
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    for target in (word for word in words if "=" not in word):
        rule = re.search(rf"^(?:[a-z -]* )?{re.escape(target)}(?: [a-z -]*)?:[^=].*(?:\n\t.*)*", MAKEFILE, re.MULTILINE)
        assert rule, f"no target is called {target}"
        for name in variables:
            known = (
                name in rule[0] or name in ("MODE", "CONFIRM") or f"{name}=" in (PROJECT / ".env.example").read_text()
            )
            assert known, f"make {target} knows no {name}"
    if "loadtest" in words:
        Settings.from_environment(variables)
    if "incident" in words and variables.get("NAME", "...") != "...":
        assert variables["NAME"] in DRILLS
    assert {rule.name for rule in alerts()}.issuperset(variables.get("RULES", "").split())
    assert all((PROJECT / path).exists() for path in variables.get("TESTS", "").split())


def _check_compose(words: list[str]) -> None:
    services = COMPOSE["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    values = {"--profile": profiles, "--scale": services}
    before, subcommand = "", ""
    for word in words:
        if subcommand == "exec" and before in services:
            return  # the rest is a command of the container's
        if before in values:
            assert word.partition("=")[0] in values[before], f"there is no {word} for {before}"
        elif re.fullmatch(r"[a-z][a-z-]*", word):
            assert not subcommand or word in services, f"no service is called {word}"
            subcommand = subcommand or word
        before = word


def test_links_lead_somewhere() -> None:
    broken = []
    for file in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
            address, _, anchor = link.partition("#")
            if "://" in address:
                continue
            target = (file.parent / address).resolve() if address else file
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if target.suffix == ".md" else []
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            if not target.exists() or (anchor and anchor not in anchors):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_files_that_the_documents_name_exist() -> None:
    """But for those of the reader's own service, and of an example."""
    own = {
        "CONTRIBUTING.md": ("docs/runbooks/ItemsMassDeleted.md",),
        "docs/adopt.md": ("monitoring/", "app/telemetry/prices.toml", "rules/"),
    }
    name = re.compile(r"(?<![\w./:*-])((?:[\w-]+/)+[\w.-]+\.(?:sql|sh|ya?ml|py|md|toml|json|args|tmpl|txt|in))\b")
    gone = [
        f"{document}: {path}"
        for file in DOCUMENTS
        for document in [str(file.relative_to(PROJECT))]
        for path in name.findall(file.read_text())
        if not ((PROJECT / path).exists() or (file.parent / path).exists() or path.startswith(own.get(document, "//")))
    ]
    assert gone == []


def test_the_table_of_core_metrics_is_right() -> None:
    """Each that is asked for in a real Prometheus, with series, a panel of the Overview and an alert that exist."""
    table, _, catalogue = (PROJECT / "docs" / "metrics.md").read_text().partition("\n## HTTP\n")
    rows = re.findall(r"^\| (.+?) \| (`.+?`) \| (.+?) \| \[(\w+)\]\(.+?\) \|$", table, re.MULTILINE)
    assert [metric.partition(":")[0] for metric, *_ in rows] == list(dict.fromkeys(query.row for query in QUERIES))
    shown = {panel["title"] for panel in panels(DASHBOARDS["overview"]) if panel["type"] == "timeseries"}
    named = {alert.name for alert in alerts()}
    queries = " ".join(target.expr for target in targets())
    for metric, series, panel, alert in rows:
        assert panel in shown, metric
        assert alert in named, metric
        for name in re.findall(r"`(\w+)`", series):
            assert name in queries, metric
            assert name in catalogue or name.startswith("node_"), metric


def test_messages_in_troubleshooting_are_those_of_the_programs() -> None:
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    symptoms = [row.split(" | ")[0] for row in page.splitlines() if row.startswith("| ")][1:]
    programs = "".join(
        file.read_text()
        for file in (
            PROJECT / "Makefile",
            *(p for d in ("app", "ops", "loadtest") for p in (PROJECT / d).rglob("*.py")),
        )
    )
    quoted = [text for symptom in symptoms for text in re.findall(r"`([^`/]+)`", symptom)]
    assert quoted
    for text in quoted:
        for piece in re.split(r"'\w+'|\d+|\.\.\.", text):  # what varies
            assert piece.strip() in programs, text


def test_the_table_of_alerts_has_their_summaries() -> None:
    page = (PROJECT / "docs" / "alerts.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/.*\| (.+) \|$", page, re.MULTILINE)
    assert rows
    assert set(rows) <= {(alert.name, alert.annotations["summary"]) for alert in alerts()}


def test_the_readme_is_short() -> None:
    """What does not fit belongs in docs/."""
    assert len(README.splitlines()) <= 110
