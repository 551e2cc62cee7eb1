"""The commands of the documents, run in a fresh copy of the project by a new user: see commands.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.paths import PROJECT
from ops.programs import find
from tests.copies import copy_project
from tests.docs.commands import ANY_MACHINE, ANY_TIME, MISSING, PORTS_IN_USE, SESSION, STACK_UP
from tests.running import folder, free_port, wait_until

# As if given on the command line.
SHORT_LOAD = {"MAKEFLAGS": "-- DURATION=10s USERS=5 LOADTEST_LINGER=0"}


@dataclass(frozen=True)
class Checkout:
    """A fresh copy of the project, with its own ports in its .env and without the user's environment."""

    folder: Path
    ports: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        own = self.folder.parent
        tools = f"{find('promtool')['promtool'].parent}:{find('amtool')['amtool'].parent}"
        return {
            "PATH": f"{os.environ['PATH']}:{tools}",
            "HOME": str(own / "home"),
            "TMPDIR": str(own / "tmp"),
            "SIGHTLINE_MODE": "native",
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
        if "_PORT:-" in command:
            command = f"{PORTS_IN_USE}; {command}"
        return subprocess.Popen(
            ["bash", "-ec", command],
            cwd=self.folder,
            env={**self.environment, **(SHORT_LOAD if "make loadtest" in command else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, given: str = "") -> str:
        """What it prints; fails where it fails."""
        return ended(self.start(command), command, given)


def ended(process: subprocess.Popen[str], command: str, given: str = "") -> str:
    output, _ = process.communicate(given, timeout=600)
    assert process.returncode == 0, f"{command}\n{output}"
    return output


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    with folder("docs") as parent:
        parent.chmod(0o711)  # where root runs this, PostgreSQL runs as another user
        project = copy_project(parent / "sightline")
        for name in ("home", "my-service"):
            (parent / name).mkdir()
        (parent / "tmp").mkdir(mode=0o1777)
        names = re.findall(r"^# (\w+_PORT)=", (PROJECT / ".env.example").read_text(), re.MULTILINE)
        ports = {name: free_port() for name in names}
        # How fast this machine is at the moment is not the question.
        thresholds = project / "loadtest" / "thresholds.toml"
        thresholds.write_text(re.sub(r"^p95 = .*", "p95 = 30.0", thresholds.read_text(), flags=re.MULTILINE))
        (project / ".env").write_text("".join(f"{name}={port}\n" for name, port in ports.items()))
        checkout = Checkout(project, ports)
        try:
            yield checkout
        finally:
            if project.exists():
                checkout.run("make down")


def test_the_commands_do_what_the_documents_say(checkout: Checkout) -> None:
    """From `make up` to the last trace: one test, because each step needs the one before."""
    service = f"http://127.0.0.1:{checkout.ports['APP_PORT']}"
    checkout.run("make secrets")
    up = checkout.start("make up")
    said = {command: checkout.run(command) for command in ANY_TIME}
    for command in ANY_MACHINE:
        if command not in MISSING:  # their exit code depends on the machine: df fails at a mount that it may not enter
            output, _ = checkout.start(command).communicate(timeout=300)
            assert output.strip(), command
    assert "make" in said["make"]
    assert "database-down" in said["make incident"]
    assert (checkout.folder.parent / "my-service" / "telemetry" / "http" / "middleware.py").exists()
    # Most of the time `make up` waits for Prometheus' first look at everything.
    wait_until(lambda: urllib.request.urlopen(f"{service}/readyz", timeout=60).status == 200)
    load = checkout.run("make loadtest")
    assert "steady: 5 users for 10 s" in load
    assert list((checkout.folder / "loadtest" / "reports").glob("*.html"))
    assert "Everything is healthy." in ended(up, "make up")

    said = {
        command: checkout.run(command, "http://127.0.0.1:9/hook\n") for command in STACK_UP if command not in MISSING
    }
    assert " healthy " in said["make status"]
    assert "prometheus         configuration reloaded" in said["make reload"]
    assert "unhealthy" not in said["make status"]
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
