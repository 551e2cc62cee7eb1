"""A `docker` on PATH that responds like Compose, and records its calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.compose import PORTS, SERVICES
from ops.paths import PROJECT
from ops.preflight import PUBLISHED
from tests.running import free_port

INHERITED = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # what `make test` leaves to what it runs
SERVERS = ("proxy", "prometheus", "alertmanager", "grafana", "postgres", "app")
SETTINGS = dict(zip(SERVERS, PUBLISHED[:4], strict=False))  # server -> setting of its port
METRICS = (
    "alertmanager_config_last_reload_successful 1\nprometheus_config_last_reload_successful 1\n"
    "alertmanager_config_last_reload_success_timestamp_seconds $NOW\n"
    "prometheus_config_last_reload_success_timestamp_seconds $NOW\n"
)
# What Compose and Docker say of the containers: from the time alone, as the one that crashes comes and goes by itself.
CONTAINERS = """
import json, os, sys, time
lines = [json.loads(line) for line in open("after" if os.path.exists("up") else "before")]
life = float(open("life").read())
restarts, age = divmod(time.time() - os.stat("up").st_mtime, life + 1) if os.path.exists("up") else (0, 0)
for line in lines:
    crashes = line["Service"] == "postgres" and life < 3600
    if crashes and age < 1:
        line["State"] = "restarting"
    started = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(time.time() - age))
    run = {"ID": line["ID"] + "-and-more", "restarts": int(restarts + 1) if crashes else 0, "started": started}
    print(json.dumps(line if sys.argv[1] == "ps" else run))
"""
TARGETS = json.dumps({"data": {"activeTargets": [{"labels": {"job": "app"}, "health": "up"}]}})


@dataclass
class Docker:
    """What the stand-in answers, and a stack's environment in which it is first on PATH."""

    folder: Path
    containers: list[dict[str, Any]] = field(default_factory=list)
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    publisher: str = ""
    """Who has published a port, as `docker ps` says it."""
    override: dict[str, Any] = field(default_factory=dict)
    health: str = "healthy"
    also: list[dict[str, Any]] = field(default_factory=list)
    """Further containers that are there after `up`."""
    life: float = 3600
    """Seconds for which the container of postgres runs until it crashes again; then it is restarted for a second."""

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        self.ports = {name: free_port() for name in SETTINGS}
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in INHERITED},
            **{SETTINGS[name]: str(port) for name, port in self.ports.items()},
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SIGHTLINE_STATE": str(self.folder / "state"),
            "SECRETS_DIR": str(self.folder / "secrets"),
            "COMPOSE_DISABLE_ENV_FILE": "1",
        }

    def write(self) -> None:
        services: dict[str, Any] = {name: {"volumes": []} for name in SERVICES}
        for name, port in self.ports.items():
            services[name]["ports"] = [{"host_ip": "127.0.0.1", "published": str(port), "target": PORTS[name]}]
        services |= self.override.get("services", {})
        services = {name: service for name, service in services.items() if service is not None}
        config = {"name": "mine", "secrets": {}, **self.override, "services": services}
        running = [
            {"Service": name, "State": "running", "Status": "Up", "Health": self.health, "Publishers": publishers(one)}
            for name, one in config["services"].items()
            if name in SERVERS
        ]
        running += self.also
        for container in (*running, *self.containers):
            container["ID"] = container["Service"]
        answers = {
            "config": config,
            "before": self.containers,
            "after": running,
            "asked": "",
        }
        for name, answer in answers.items():
            lines = answer if isinstance(answer, list) else [answer]
            (self.folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines if line != ""))
        (self.folder / "life").write_text(str(self.life))
        (self.folder / "containers.py").write_text(CONTAINERS)
        script = self.folder / "bin" / "docker"
        script.write_text(
            f"""#!/bin/sh
cd {self.folder}
echo "$*" >> asked
case "$*" in
    *" config "*) cat config;;
    *" ps --all --format=json") {sys.executable} -IS containers.py ps;;
    inspect*) {sys.executable} -IS containers.py inspect;;
    "ps --all"*) echo '{self.working_dir}';;
    "ps --filter publish="*) printf '%s' '{self.publisher}';;
    *--entrypoint=tar*) tar -C {self.folder} -cf - asked;;
    "volume ls"*) printf '%s\\n' {" ".join(self.volumes)};;
    *"compose up"*) touch up;;
    *" down "*) rm -f up;;
    *"/api/v1/targets"*) echo '{TARGETS}';;
    *"/metrics"*) NOW=$(date +%s%N); echo "{METRICS}";;
esac
"""
        )
        script.chmod(0o755)

    def ops(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        self.write()
        return subprocess.run(
            [sys.executable, "-m", "ops", *words],
            cwd=PROJECT, env={**self.environment, **changes}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def make(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        self.write()
        environment = {**self.environment, **changes}
        return subprocess.run(["make", *words], cwd=PROJECT, env=environment, capture_output=True, text=True)

    def asked(self, *words: str) -> list[str]:
        """The calls that contain one of these words."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if any(word in line.split() for word in words)]


def publishers(service: dict[str, Any]) -> list[dict[str, Any]]:
    """What Compose says of the ports of a container that runs; the engine has chosen those that leave it a choice."""
    return [
        {
            "URL": port.get("host_ip", "0.0.0.0"),
            "TargetPort": port["target"],
            "PublishedPort": int(port.get("published", "49153").split("-")[-1]),
        }
        for port in service.get("ports") or ()
    ]
