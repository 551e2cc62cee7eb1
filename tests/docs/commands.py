"""The commands in README.md, CONTRIBUTING.md and docs/ do what the documents say, as they stand there.

Every line of every shell block, and every command in the running text, is in one of three classes: run here, in a fresh
copy of the project that becomes a stack of its own; run by another test; or only checked (make targets and their
variables, services, files and settings that it names exist), with the reason. The run ends with a summary of them.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

import yaml

from ops.paths import PROJECT

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
PORTS_IN_USE = "[ ! -f .env ] || . ./.env"  # the first line of what asks for an address that settings change
STACK_UP = (
    PORTS_IN_USE,
    "make status",
    "make logs SERVICE=app",
    "make psql < postgres/init/10-roles.sql",
    "make reload",
    "make restart",
    "curl -s localhost:8000/metrics -H @<(sed 's/^/Authorization: Bearer /' secrets/prometheus/metrics_token)",
    "install -m 0444 /dev/stdin secrets/alertmanager/slack_url",
    "curl -s http://localhost:${PROMETHEUS_PORT:-9090}/api/v1/alertmanagers",
    "curl -s http://localhost:${PROMETHEUS_PORT:-9090}/api/v1/targets | head -c 2000",
    "curl -s http://localhost:${PROMETHEUS_PORT:-9090}/-/ready",
    "curl -s http://localhost:${ALERTMANAGER_PORT:-9093}/-/ready",
    "curl -sv https://YOUR-SERVICE/healthz",
    "curl -sv http://localhost:${APP_PORT:-8000}/readyz",
    "sed 's/^/Authorization: Bearer /' secrets/prometheus/metrics_token "
    "| curl -s -H @- localhost:${APP_PORT:-8000}/metrics "
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
OURS = {"amtool", "promtool", "cd", "[", "KEY=$(curl"}  # the project brings them; the shell has it
MISSING = {text: tool for text in RUN_HERE if (tool := text.split()[0]) not in OURS and not shutil.which(tool)}

BY_ANOTHER_TEST = {"docs/adopt.md": "tests/docs/test_adopt.py"}  # all that the document has
ONLY_CHECKED = {
    r"git clone <": "needs the repository's address",
    r"cd sightline$": "the tests' copy is made there",
    r"make (test|lint|check|bench|fuzz|chaos|replay|soak-idle|test-\S+|lock|dashboards-types)\b": "long, or runs this",
    r"(sed -i .* prometheus/slo.toml|make generate)": "done in a copy by tests/prometheus/test_settings.py",
    r"make loadtest-ui": "waits for a person with a browser",
    r"make incident NAME=": "takes minutes: make test-drills runs every drill",
    r"make (up|down|clean|logs|status|loadtest|adopt)\b": "with other settings run here, or in tests of its own",
    r"make psql": "waits for a person, or for a file that the reader has",
    r"make (backup|restore|grafana-password)": "tests/ops loses everything, and has it back",
    r"make venv": "installs all packages: tests/ops/test_chaos.py does it with one",
    r"make (outdated|audit)": "asks registries: tests/ops/test_outdated.py asks one of its own",
    r"make pull": "asks registries: tests/ops/test_preparation.py sees what for",
    r"(make kubernetes|kubectl )": "tests/ops/test_kubernetes.py looks at what is written; the rest needs a cluster",
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
