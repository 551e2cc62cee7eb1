"""The commands in README.md, CONTRIBUTING.md and docs/ do what the documents say, as they stand there.

Every line of every shell block, and every command in the running text, is in one of three classes: run here, in a fresh
copy of the project that becomes a stack of its own; run by another test; or only checked (make targets and their
variables, services, files and settings that it names exist), with the reason. The run ends with a summary of them.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from loadtest.settings import Settings
from ops.drills.catalogue import DRILLS
from ops.packages import find
from ops.paths import PROJECT
from tests import servers
from tests.copies import copy_project
from tests.fourteen import QUERIES
from tests.grafana.dashboards import DASHBOARDS, panels, targets
from tests.prometheus.rules import alerts, promtool
from tests.servers import wait_until

DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
MAKEFILE = (PROJECT / "Makefile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())

# Run while `make up` is under way: they need no stack.
ANY_TIME = (
    "make",
    "make incident",
    "make adopt TARGET=../my-service",
    "make check-config",
    "amtool check-config alertmanager/alertmanager.yml",
    "promtool check config --syntax-only prometheus/prometheus.yml",
    "promtool check rules prometheus/rules/*.yml",
    "cat prometheus/targets/alertmanager.yml",
)
ANY_MACHINE = (  # run where the machine has the program
    "df -h",
    "df -i",
    "free -h",
    "ip -s link",
    "top -b -n 1 | head -15",
    "ps -eo pid,user,rss,comm --sort=-rss | head",
)
STACK_UP = (
    "make status",
    "make logs SERVICE=app",
    "make psql < postgres/init/10-roles.sql",
    "make reload",
    "curl -s localhost:8000/metrics -H @<(sed 's/^/Authorization: Bearer /' secrets/prometheus/metrics_token)",
    "install -m 0444 /dev/stdin secrets/alertmanager/slack_url",
    "curl -s http://localhost:9090/api/v1/alertmanagers",
    "curl -s http://localhost:9090/api/v1/targets | head -c 2000",
    "curl -s http://localhost:9090/-/ready",
    "curl -s http://localhost:9093/-/ready",
    "curl -sv https://YOUR-SERVICE/healthz",
    "curl -sv http://localhost:8000/readyz",
    "sed 's/^/Authorization: Bearer /' secrets/prometheus/metrics_token | curl -s -H @- localhost:8000/metrics "
    "| grep -v '^#' | sed 's/[{ ].*//' | sort | uniq -c | sort -n | tail",
    "curl -s http://TARGET/metrics | grep -v '^#' | sed 's/[{ ].*//' | sort | uniq -c | sort -n | tail",
)
# README's four curl lines: one shell session, since the later ones use the key that the first one gets.
README = (PROJECT / "README.md").read_text()
SESSION = tuple(
    line.partition("    #")[0].rstrip() for line in re.findall(r"^(?:KEY=\$\()?curl .*", README, re.MULTILINE)
)
THE_END = ("make down", "make clean", "cd .. && rm -rf sightline")
RUN_HERE = {*ANY_TIME, *ANY_MACHINE, "make secrets", "make up", "make loadtest", *STACK_UP, *SESSION, *THE_END}
OURS = {"amtool", "promtool", "cd", "KEY=$(curl"}  # the project brings them; the shell has it
MISSING = {text: tool for text in RUN_HERE if (tool := text.split()[0]) not in OURS and not shutil.which(tool)}

BY_ANOTHER_TEST = {"docs/adopt.md": "tests/docs/test_adopt.py"}  # all that the document has
ONLY_CHECKED = {
    r"git clone <": "needs the repository's address",
    r"cd sightline$": "the tests' copy is made there",
    r"make (test|lint|bench|fuzz|soak-idle|test-\S+|lock|dashboards-types)\b": "takes long, or is what runs this test",
    r"(sed -i .* prometheus/slo.toml|make generate)": "done in a copy by tests/prometheus/test_settings.py",
    r"make loadtest-ui": "waits for a person with a browser",
    r"make incident NAME=": "takes minutes: make test-drills runs every drill",
    r"make (up|down|clean|logs|status|loadtest|adopt)\b": "with other settings run here, or in tests of its own",
    r"make psql": "waits for a person, or for a file that the reader has",
    r"make (backup|restore|grafana-password)": "tests/ops loses everything, and has it back",
    r"make (outdated|audit)": "asks registries: tests/ops/test_outdated.py asks one of its own",
    r"make pull": "asks registries: tests/ops/test_preparation.py sees what for",
    r"make sbom": "installs another set of packages",
    r"make standins": "needs a Docker engine, which make test-stack has",
    r"docker ": "needs a Docker engine: tests/ops/docker/test_documents.py",
    r"du |ps -eo state|(vmstat|iostat|pidstat) |ethtool |timedatectl|chronyc |journalctl |for d in /var":
        "looks long, or finds nothing on a healthy machine",
    r"PID=\.\.\.": "for the reader to fill in",
    r"(amtool|promtool) [a-z-]+( [a-z]+)?$": "names a subcommand",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    text: str
    document: str
    in_block: bool

    @property
    def reason(self) -> str | None:
        """Why it is only checked."""
        return next((reason for start, reason in ONLY_CHECKED.items() if re.match(start, self.text)), None)


def commands() -> list[Command]:
    found: dict[tuple[str, str], Command] = {}
    for file in DOCUMENTS:
        document = str(file.relative_to(PROJECT))
        text = file.read_text()
        for block in re.findall(r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.sub(r"(^|\s+)# .*$", "", line).strip()
                if command:
                    found[document, command] = Command(command, document, True)
        outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for command in re.findall(r"`((?:make|docker|python3? -m|promtool|amtool|curl) [^`]+|make)`", outside):
            found.setdefault((document, command), Command(" ".join(command.split()), document, False))
    return list(found.values())


COMMANDS = commands()
by_document = pytest.mark.parametrize("document", dict.fromkeys(command.document for command in COMMANDS))


def test_every_command_is_run_or_known(tell: Callable[[str, str], None]) -> None:
    run = [c for c in COMMANDS if c.text in RUN_HERE and c.text not in MISSING]
    elsewhere = [c for c in COMMANDS if c not in run and c.document in BY_ANOTHER_TEST and (c.in_block or not c.reason)]
    rest = [c for c in COMMANDS if c not in (*run, *elsewhere) and c.text not in MISSING]
    unknown = [f"{c.document}: {c.text}" for c in rest if c.reason is None]
    assert not unknown, f"say in {Path(__file__).name} how these are to be tested: {unknown}"
    assert not (gone := RUN_HERE - {c.text for c in COMMANDS}), f"no document has these any more: {gone}"

    title = "commands of the documents"
    tell(title, f"run here: {len(run)}")
    for file in sorted(set(BY_ANOTHER_TEST.values())):
        tell(title, f"run by {file}: {len(elsewhere)}")
    for reason in dict.fromkeys([*ONLY_CHECKED.values(), *MISSING.values()]):
        texts = dict.fromkeys(
            [c.text for c in rest if c.reason == reason] + [m for m in MISSING if MISSING[m] == reason]
        )
        if texts:
            why = f"this machine has no {reason}" if reason in MISSING.values() else reason
            tell(title, f"only checked: {len(texts)} ({why})")
            for line in textwrap.wrap("; ".join(texts), 116):
                tell(title, f"    {line}")


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


# Run, as somebody does who has just got the project


@dataclass(frozen=True)
class Checkout:
    """A fresh copy of the project, with ports of its own in its .env and nothing of the user's environment."""

    folder: Path
    ports: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        own = self.folder.parent
        tools = f"{find('promtool')['promtool'].parent}:{find('amtool')['amtool'].parent}"
        short_load = "DURATION=10s USERS=5 LOADTEST_LINGER=0"
        return {
            "PATH": f"{os.environ['PATH']}:{tools}",
            "HOME": str(own / "home"),
            "TMPDIR": str(own / "tmp"),
            "SIGHTLINE_MODE": "native",
            "MAKEFLAGS": f"-- {short_load}",  # as if given on each command line
        }

    def start(self, command: str) -> subprocess.Popen[str]:
        """The command as it stands in a document; only addresses are this copy's."""
        places = {
            "8000": "APP_PORT",
            "9090": "PROMETHEUS_PORT",
            "9093": "ALERTMANAGER_PORT",
        }
        command = command.replace("https://YOUR-SERVICE", "http://localhost:8000").replace(
            "//TARGET/", "//localhost:9100/"
        )
        for standard, name in {**places, "9100": "NODE_EXPORTER_PORT"}.items():
            command = command.replace(f"localhost:{standard}", f"127.0.0.1:{self.ports[name]}")
        return subprocess.Popen(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, given: str = "") -> str:
        """What it prints; fails where it fails."""
        return ended(self.start(command), command, given)


def ended(process: subprocess.Popen[str], command: str, given: str = "") -> str:
    output, _ = process.communicate(given, timeout=300)
    assert process.returncode == 0, f"{command}\n{output}"
    return output


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    with servers.folder("docs") as parent:
        parent.chmod(0o711)  # where root runs this, PostgreSQL runs as another user
        folder = copy_project(parent / "sightline")
        for name in ("home", "my-service"):
            (parent / name).mkdir()
        (parent / "tmp").mkdir(mode=0o1777)
        names = re.findall(r"^# (\w+_PORT)=", (PROJECT / ".env.example").read_text(), re.MULTILINE)
        ports = {name: servers.free_port() for name in names}
        # How fast this machine is at the moment is not the question.
        thresholds = folder / "loadtest" / "thresholds.toml"
        thresholds.write_text(re.sub(r"^p95 = .*", "p95 = 30.0", thresholds.read_text(), flags=re.MULTILINE))
        (folder / ".env").write_text("".join(f"{name}={port}\n" for name, port in ports.items()))
        checkout = Checkout(folder, ports)
        try:
            yield checkout
        finally:
            if folder.exists():
                checkout.run("make down")


def test_the_commands_do_what_the_documents_say(checkout: Checkout) -> None:
    """From `make up` to the last trace: one test, because each step needs the one before."""
    service = f"http://127.0.0.1:{checkout.ports['APP_PORT']}"
    checkout.run("make secrets")
    up = checkout.start("make up")
    said = {command: checkout.run(command) for command in ANY_TIME}
    for command in ANY_MACHINE:
        if command not in MISSING:  # their exit code tells of the machine: df fails at a mount that it may not enter
            output, _ = checkout.start(command).communicate(timeout=60)
            assert output.strip(), command
    assert "make" in said["make"]
    assert "database-down" in said["make incident"]
    assert (checkout.folder.parent / "my-service" / "telemetry" / "http" / "middleware.py").exists()
    # Most of the time `make up` waits for Prometheus' first look at everything.
    wait_until(lambda: urllib.request.urlopen(f"{service}/readyz", timeout=5).status == 200, 120)
    load = checkout.run("make loadtest")
    assert "steady: 5 users for 10 s" in load
    assert list((checkout.folder / "loadtest" / "reports").glob("*.html"))
    assert "Everything is well." in ended(up, "make up")

    said = {
        command: checkout.run(command, "http://127.0.0.1:9/hook\n") for command in STACK_UP if command not in MISSING
    }
    assert " ok " in said["make status"]
    assert "prometheus         has read its configuration again" in said["make reload"]
    assert "unwell" not in said["make status"]
    assert "Serving on http://127.0.0.1:" in said["make logs SERVICE=app"]
    for command, output in said.items():
        if "curl" in command:
            assert output, command
        if "metrics_token" in command:
            assert "http_request" in output, output
    _use_the_service(checkout.run("\n".join(SESSION)))
    assert (checkout.folder / "secrets" / "alertmanager" / "slack_url").read_text().startswith("http://")

    checkout.run("make down")
    checkout.run("make clean", "y\n")
    assert not (checkout.folder / ".native" / "data").exists()
    checkout.run("cd .. && rm -rf sightline")
    parent = checkout.folder.parent
    left = [path for path in parent.rglob("*") if path.is_file() and parent / "my-service" not in path.parents]
    assert left == [], "nothing is left anywhere"


def _use_the_service(printed: str) -> None:
    """README's session: an item, a stream with an end, and both of them counted."""
    item, end = json.JSONDecoder().raw_decode(printed)
    rest = printed[end:].splitlines()
    assert item["title"] == "Milk"
    events = [line for line in rest if line.startswith("event: ")]
    assert events[0] == "event: start"
    assert events[-1] == "event: done"
    for endpoint, status in (("/users", 201), ("/items", 201), ("/chat", 200)):
        [counted] = [
            line
            for line in rest
            if line.startswith("http_requests_total{")
            and all(label in line for label in ('method="POST"', f'endpoint="{endpoint}"', f'status_code="{status}"'))
        ]
        assert float(counted.rpartition(" ")[2]) >= 1


def test_the_block_for_remote_write_is_valid(tmp_path: Path) -> None:
    [block] = re.findall(
        r"^```yaml\n(.*?)^```$", (PROJECT / "docs" / "remote-write.md").read_text(), re.MULTILINE | re.DOTALL
    )
    config = tmp_path / "prometheus.yml"
    config.write_text((PROJECT / "prometheus" / "prometheus.yml").read_text() + block)
    check = promtool("check", "config", "--syntax-only", config)
    assert check.returncode == 0, check.stdout + check.stderr


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
            *(p for d in ("app", "ops") for p in (PROJECT / d).rglob("*.py")),
        )
    )
    quoted = [text for symptom in symptoms for text in re.findall(r"`([^`/]+)`", symptom)]
    assert quoted
    for text in quoted:
        for piece in re.split(r"'\w+'|\d+|\.\.\.", text):  # what varies
            assert piece.strip() in programs, text


def test_the_readme_is_short() -> None:
    """What does not fit belongs into docs/."""
    assert len(README.splitlines()) <= 110
