"""A whole stack without Docker for tests: a copy of the project, on free ports, with a state folder of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from ops import commands, settings
from ops.errors import OpsError
from ops.processes import ProcessStack
from ops.supervise import Supervisor
from tests.copies import copy_project
from tests.running import folder, free_port, wait_until
from tests.servers import faster

SERVERS = {"postgres", "postgres-exporter", "node-exporter", "app", "alertmanager", "prometheus", "grafana"}
# Answers as Grafana does where the stack asks it, and can be scraped. The real one is no Debian package.
GRAFANA = """#!/bin/sh
if [ "$1" = cli ]; then
    [ "$2 $4 $5 $6" = "--homepath admin reset-admin-password --password-from-stdin" ] || exit 1
    cat > "$GF_PATHS_DATA/password"
    exit
fi
exec python3 -c '
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")  # Prometheus 3 refuses a scrape without
        self.end_headers()
        self.wfile.write(b"grafana_build_info 1\\n" if self.path == "/metrics" else b"{}")
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.ThreadingHTTPServer(address, Answer).serve_forever()
'
"""


@dataclass(frozen=True)
class Stack:
    """A stack of the tests' own, running or not, of a copy of the project."""

    project: Path
    state: Path
    environment: dict[str, str]

    def run(self, *command: str, given: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **changes}
        return subprocess.run(
            [self.project / ".venv" / "bin" / "python", "-m", "ops", *command, "MODE=native"],
            input=given,
            env=environment,
            cwd=self.project,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def well(self, **changes: str) -> subprocess.CompletedProcess[str]:
        """What `make status` says when everything is healthy; on a busy machine a scrape may take too long before."""

        def status() -> subprocess.CompletedProcess[str]:
            result = self.run("status", **changes)
            assert result.returncode == 0, result.stdout + result.stderr
            return result

        return wait_until(status, interval=1)

    def port(self, server: str) -> int:
        return int(self.environment[f"{server.upper().replace('-', '_')}_PORT"])

    def address(self, server: str) -> str:
        return f"http://127.0.0.1:{self.port(server)}"

    @property
    def ports(self) -> dict[str, int]:
        return {server: self.port(server) for server in SERVERS}

    @property
    def stack(self) -> ProcessStack:
        return ProcessStack(settings.load(self.environment))

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.state)

    def pid(self, server: str) -> int:
        return int(self.supervisor.processes()[server]["pid"])

    def processes(self) -> list[psutil.Process]:
        return self.supervisor.leftovers()

    def healthy(self) -> bool:
        """What `make status` says, without starting a Python for it."""
        try:
            commands.status(self.stack)
        except OpsError:
            return False
        return True


@contextmanager
def native_stack(interval: str = "3s", place: str = ".", **changes: str) -> Iterator[Stack]:
    """A stack that has not been started; its Prometheus, for which commands wait, scrapes at this interval.

    All of it is in a folder called `place`; `changes` are further settings.
    """
    with folder("stack") as parent:
        parent.chmod(0o711)
        state = parent / place
        state.mkdir(mode=0o711, exist_ok=True)
        project = copy_project(state / "sightline")
        faster(project / "prometheus", interval)
        home = state / "grafana"
        (home / "bin").mkdir(parents=True)
        (home / "bin" / "grafana").write_text(GRAFANA)
        (home / "bin" / "grafana").chmod(0o755)
        ports = {name: str(free_port()) for name in settings.DEFAULTS if name.endswith("_PORT")}
        environment = {
            "PATH": os.environ["PATH"],
            **ports,
            "SIGHTLINE_STATE": str(state / "state"),
            "SECRETS_DIR": str(state / "secrets"),
            "BACKUPS_DIR": str(state / "backups"),
            "GRAFANA_HOME": str(home),
            "LLM_PROVIDER": "simulated",
            "COMPOSE_DISABLE_ENV_FILE": "1",  # a developer's .env must not decide what is tested
            **changes,
        }
        stack = Stack(project, state / "state", environment)
        try:
            yield stack
        finally:
            stack.run("down")
