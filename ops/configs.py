"""Folders for Prometheus and Alertmanager: links to the very files that Docker uses, and their own target files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.paths import PROJECT

AT_START = {  # server -> files and folders that it reads at its start only
    "app": ("app", "requirements/dev.txt"),
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


def link(name: str, folder: Path, secrets: Path) -> Path:
    """Make `folder` a copy, by links, of the project's folder `name`; its `secrets` leads to `secrets`/`name`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in (PROJECT / name).iterdir():
        if entry.name not in ("targets", "secrets"):
            (folder / entry.name).symlink_to(entry)
    (folder / "secrets").symlink_to(secrets / name)
    return folder


def write_targets(folder: Path, addresses: Mapping[str, Sequence[str]]) -> None:
    """Write Prometheus' target files in `folder`/targets: scrape job -> addresses; empty for a job without any."""
    books = folder / "targets"
    books.mkdir()
    for book in (PROJECT / "prometheus" / "targets").glob("*.yml"):
        targets = list(addresses.get(book.stem, ()))
        (books / book.name).write_text(json.dumps([{"targets": targets}]) + "\n")  # JSON is YAML, too
