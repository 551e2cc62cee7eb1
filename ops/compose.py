"""Docker Compose for this project: the variables it is given, its configuration, containers and volumes.

Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ops import configs, images, remote_write, shell
from ops.paths import PROJECT
from ops.settings import REMOTE_WRITE_FOLDER, Settings

ALL_PROFILES = "--profile=*"
PROJECT_LABEL = "com.docker.compose.project"
PORTS = {"proxy": 8000, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "locust": 8089}  # in the containers
SECOND = "-2"  # the end of the names in docker-compose.ha.yml
LOCAL = ("", "0.0.0.0", "::", "127.0.0.1")  # noqa: S104  addresses of published ports that localhost leads to
PAGES = {"proxy": "/"}
OVERRIDES = ("docker-compose.override.yml", "docker-compose.override.yaml")  # which Compose reads by itself
REMOTE_WRITE_FILE = "docker-compose.remote-write.yml"
SERVICES = ("app", "proxy", "postgres", "postgres-exporter", "node-exporter", "prometheus", "alertmanager", "grafana")
LONGTERM = "victoriametrics"


class Compose:
    """`docker compose` with the project's files and settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.longterm = bool(settings.get(remote_write.RETENTION))  # a long-term store in the stack itself
        self.environment = {
            **settings.environment(),
            "EXPORTER_OPTIONS_DIGEST": configs.read_at_start("postgres-exporter"),
            "GRAFANA_PROVISIONING_DIGEST": configs.read_at_start("grafana"),
            "API_KEYS_DIGEST": configs.keys(settings),
            "PROXY_DIGEST": configs.read_at_start("proxy"),
        }
        if remote_write.is_on(settings):
            self._add_remote_write()
        profiles = [name for name, used in {"longterm": self.longterm, "valkey": settings.has_valkey}.items() if used]
        if profiles:
            given = filter(None, [self.environment.get("COMPOSE_PROFILES")])
            self.environment["COMPOSE_PROFILES"] = ",".join([*given, *profiles])
        if not settings.get("CERTIFICATES_DIR") and (folder := images.certificates()):
            self.environment["CERTIFICATES_DIR"] = str(folder)

    @property
    def prometheus_yml(self) -> Path:
        """Prometheus' configuration with remote write, which then replaces the project's own."""
        return self.settings.folder("SIGHTLINE_STATE") / REMOTE_WRITE_FOLDER / "prometheus.yml"

    def _add_remote_write(self) -> None:
        """Add docker-compose.remote-write.yml to the files that Compose would read."""
        separator = self.environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = self.environment.get("COMPOSE_FILE") or separator.join(
            ["docker-compose.yml", *[name for name in OVERRIDES if (PROJECT / name).exists()][:1]]
        )
        self.environment |= {
            "COMPOSE_FILE": separator.join([files, REMOTE_WRITE_FILE]),
            "REMOTE_WRITE_CONFIG": str(self.prometheus_yml),
            **remote_write.grafana(self.settings),
        }
        if self.settings.get(remote_write.URL):
            self.environment["REMOTE_WRITE_NETWORK"] = "outside"

    def compose(self, *arguments: str) -> str:
        """The output of `docker compose`.

        Raises:
            OpsError: it fails; with the end of its error output.
        """
        return shell.run(["docker", "compose", *arguments], self.environment, cwd=PROJECT)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The merged configuration, settings filled in, services of all profiles included."""
        merged: dict[str, Any] = json.loads(self.compose(ALL_PROFILES, "config", "--format=json"))
        return merged

    @property
    def project(self) -> str:
        return str(self.config["name"])

    def has_server(self, name: str) -> bool:
        """Whether the stack has this server: an override may remove one, such as Grafana where another one is used."""
        return name in self.config["services"]

    def is_on(self, name: str) -> bool:
        """Whether `up` starts a service: it is there, its profile is active, and no override has scaled it to 0."""
        service = self.config["services"].get(name, {"scale": 0})
        active = {*self.environment.get("COMPOSE_PROFILES", "").split(",")}
        profiles = service.get("profiles")
        number = service.get("scale", (service.get("deploy") or {}).get("replicas", 1))
        return number != 0 and (not profiles or bool(active & {*profiles, "*"}))

    def containers(self) -> list[dict[str, Any]]:
        """Every container, running or not, as `docker compose ps` reports it."""
        return [json.loads(line) for line in self.compose(ALL_PROFILES, "ps", "--all", "--format=json").splitlines()]

    def running(self) -> set[str]:
        """The services with a running container."""
        return {container["Service"] for container in self.containers() if container["State"] == "running"}

    def volumes(self) -> list[str]:
        label = f"label={PROJECT_LABEL}={self.project}"
        return shell.run(["docker", "volume", "ls", "--quiet", "--filter", label], self.environment).split()

    def page(self, container: Mapping[str, Any]) -> str:
        """The URL at which a browser reaches the server in a container; empty if its port is not published."""
        server = container["Service"]
        for one in container.get("Publishers") or ():
            if one["PublishedPort"] and one["TargetPort"] == PORTS.get(server.removesuffix(SECOND)):
                host = "localhost" if one["URL"] in LOCAL else one["URL"]
                return f"http://{host}:{one['PublishedPort']}{PAGES.get(server, '')}"
        return ""

    # Which of Docker's stacks belong to this checkout

    def started(self) -> list[str]:
        """The project names of the stacks that this checkout has started."""
        file = mark(self.settings)
        return file.read_text().split() if file.exists() else []

    def remember(self, names: set[str]) -> None:
        """Store the result of `started`; without any the file is removed."""
        file = mark(self.settings)
        if names:
            file.write_text("".join(f"{name}\n" for name in sorted(names)))
        else:
            file.unlink(missing_ok=True)


def mark(settings: Settings) -> Path:
    """The file that exists while Docker may have data of this checkout; it lists the project names of its stacks."""
    return settings.folder("SIGHTLINE_STATE") / "in-docker"
