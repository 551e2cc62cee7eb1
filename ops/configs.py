"""Folders for Prometheus and Alertmanager: links to the very files that Docker uses, and their own target files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.paths import PROJECT
from ops.settings import KEY_FILES, Settings

PROMETHEUS = PROJECT / "prometheus" / "prometheus.yml"
AT_START = {  # server -> files and folders that it reads at its start only
    "app": ("app", "requirements/dev.txt"),
    "proxy": ("proxy", "ha/haproxy.cfg"),
    "postgres": ("postgres/init",),
    "postgres-exporter": ("postgres/exporter.args",),
    "grafana": ("grafana/provisioning", "grafana/longterm"),
}


def read_at_start(*servers: str) -> str:
    """A checksum of what these servers read at their start only: with another one, `make up` restarts them."""
    found = hashlib.sha256()
    for place in (PROJECT / name for server in servers for name in AT_START[server]):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.parent.name != "__pycache__":
                found.update(f"{file.relative_to(PROJECT)} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


def keys(settings: Settings) -> str:
    """Changes when a file with a provider's key does: the service reads these at its start. Empty without any."""
    files = [Path(settings.get(name)) for name in KEY_FILES if settings.get(name)]
    stamps = [file.stat().st_mtime_ns for file in files if file.exists()]
    return hashlib.sha256(str(stamps).encode()).hexdigest()[:16] if stamps else ""


def link(name: str, folder: Path, secrets: Path) -> Path:
    """Make `folder` a copy, by links, of the project's folder `name`; its `secrets` leads to `secrets`/`name`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in (PROJECT / name).iterdir():
        if entry.name not in ("targets", "secrets", PROMETHEUS.name):
            (folder / entry.name).symlink_to(entry)
    (folder / "secrets").symlink_to(secrets / name)
    if name == "prometheus":
        write_prometheus(folder)
    return folder


def write_prometheus(folder: Path, also: str = "") -> None:
    """Write prometheus.yml for servers outside of Docker; `also`: more sections."""
    (folder / PROMETHEUS.name).write_text(without_dns(PROMETHEUS.read_text()) + also)


def without_dns(text: str) -> str:
    """prometheus.yml without its blocks `dns_sd_configs` and the comments above them.

    They ask Docker's DNS for services; another DNS might know hosts of these names.
    """
    return re.sub(r"^(?: {4}#.*\n)* {4}dns_sd_configs:\n(?: {6}.*\n)+", "", text, flags=re.MULTILINE)


def write_replicas(file: Path, addresses: Sequence[str]) -> None:
    """Write the addresses of the service's replicas for HAProxy, which proxy/docker.cfg has in Docker."""
    servers = [f"    server app-{number} {address}" for number, address in enumerate(addresses, 1)]
    checked = [f"{server} check" for server in servers]
    file.write_text("\n".join(["backend app from http", *checked, "", "backend unready from http", *servers, ""]))


def write_targets(folder: Path, addresses: Mapping[str, Sequence[str]]) -> None:
    """Write Prometheus' target files in `folder`/targets: scrape job -> addresses; empty for a job without any."""
    (folder / "targets").mkdir()
    for file in (PROJECT / "prometheus" / "targets").glob("*.yml"):
        targets = list(addresses.get(file.stem, ()))
        (folder / "targets" / file.name).write_text(json.dumps([{"targets": targets}]) + "\n")  # JSON is YAML, too
