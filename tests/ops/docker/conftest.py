"""The unmodified docker-compose.yml, started once for all tests under a project name and on ports of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ops import images, secrets
from ops.paths import PROJECT
from tests.rig import engine
from tests.running import free_port, temporary_folder, wait_until
from tests.servers import AlertmanagerApi, PrometheusApi

NAME = "sightline-test"
PUBLISHED = {"proxy": 8000, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
SETTINGS = {"proxy": "APP"}  # of ports that do not have the service's name
LOCUST = "locust"  # of the profile `load`: built and inspected, started by the load test's own tests
UP_SECONDS = 240


class Stack:
    """The running containers and ways to look at them."""

    def __init__(self, folder: Path) -> None:
        self.secrets = folder / "secrets"
        secrets.generate(self.secrets)
        self.ports = {service: free_port() for service in [*PUBLISHED, LOCUST]}
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": NAME,
            "COMPOSE_DISABLE_ENV_FILE": "1",  # a developer's .env must not decide what is tested
            "SECRETS_DIR": str(self.secrets),
            "BACKUPS_DIR": str(folder / "backups"),
            "SIGHTLINE_STATE": str(folder / "state"),
            "CERTIFICATES_DIR": str(images.certificates() or PROJECT / "ops" / "certificates"),
            **{f"{SETTINGS.get(service, service.upper())}_PORT": str(port) for service, port in self.ports.items()},
        }
        self.services = tuple(json.loads(self.compose("config", "--format=json"))["services"])
        self.prometheus, self.alertmanager = PrometheusApi(), AlertmanagerApi()
        self.prometheus.url, self.alertmanager.url = self.url("prometheus"), self.url("alertmanager")

    def passwords(self) -> dict[str, str]:
        """Every secret by name."""
        return {name: (self.secrets / name).read_text() for name in secrets.NAMES}

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def compose(self, *arguments: str, timeout: float = UP_SECONDS) -> str:
        return self.docker("compose", *arguments, timeout=timeout)

    def docker(self, *arguments: str, timeout: float = UP_SECONDS) -> str:
        result = self.run(*arguments, timeout=timeout)
        assert result.returncode == 0, f"docker {' '.join(arguments)}:\n{result.stderr[-3000:]}"
        return result.stdout

    def run(self, *arguments: str, timeout: float = UP_SECONDS) -> subprocess.CompletedProcess[str]:
        """The result of a docker command, whichever it is."""
        return subprocess.run(
            ["docker", *arguments], cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    def make(self, *command: str) -> str:
        """What a command of `make` prints, as it is run with Docker; it must succeed."""
        result = self.try_to_make(*command)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def try_to_make(
        self, *command: str, given: str = "", project: Path = PROJECT, settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same, however it ends; `settings` are of this command alone."""
        return subprocess.run(
            [sys.executable, "-m", "ops", *command, "MODE=docker"],
            input=given,
            cwd=project,
            env={**self.environment, **(settings or {})},
            capture_output=True,
            text=True,
            timeout=3 * UP_SECONDS,
        )

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each service's container."""
        identities = self.compose("ps", "--all", "--quiet").split()
        inspected = json.loads(self.docker("inspect", *identities))
        return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in inspected}

    def health(self) -> dict[str, str]:
        return {service: container["State"]["Health"]["Status"] for service, container in self.containers().items()}

    def wait_until_healthy(self) -> None:
        wait_until(lambda: set(self.health().values()) == {"healthy"}, interval=0.5)

    def shell(self, service: str, script: str) -> subprocess.CompletedProcess[str]:
        """A shell script's result inside the service's container."""
        return self.run("compose", "exec", "-T", service, "sh", "-c", script)

    def up(self) -> None:
        try:
            self.compose("up", "--build", "--detach", "--wait", f"--wait-timeout={UP_SECONDS}", timeout=2 * UP_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--no-color', '--tail=15')}") from None

    def down(self) -> None:
        self.compose("--profile=*", "down", "--volumes", "--remove-orphans", "--rmi=local", "--timeout=20")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """All services, up and healthy; removed with their volumes, networks and images at the end."""
    assert engine.answers(), "no Docker engine with Compose answers: run these tests by `make test-stack`"
    folder = temporary_folder("sightline-stack-")
    with open(f"/tmp/{NAME}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs on one engine take turns
        running = Stack(folder)
        running.down()  # what an interrupted run has left
        try:
            running.up()
            yield running
        finally:
            running.down()
            shutil.rmtree(folder)
