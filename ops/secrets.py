"""The stack's passwords: made on first use, one file each, shared by Docker and native mode."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

METRICS_TOKEN = "prometheus/metrics_token"  # noqa: S105  a file: the token that /metrics requires and Prometheus sends
GRAFANA_KEY = "grafana_secret_key"
NAMES = (
    "postgres_password",
    "app_db_password",
    "exporter_db_password",
    "grafana_admin_password",
    GRAFANA_KEY,
    "faults_token",
    "active_users_key",
    "valkey_password",
    METRICS_TOKEN,
)
PASSWORD_TO_SHOW = "grafana_admin_password"  # noqa: S105  a file name; the only password that users type
FOLDERS = ("prometheus", "alertmanager")  # whose configuration names files in `secrets/`: each sees its own folder


def make(folder: Path) -> list[str]:
    """`generate`, and print their folder; a new Grafana password is shown now, even if a later step fails."""
    made = generate(folder)
    if PASSWORD_TO_SHOW in made:
        password = (folder / PASSWORD_TO_SHOW).read_text()
        print(f"Created the passwords in {folder}. Grafana's user is admin, its password (shown only once) {password}")
    return made


def generate(folder: Path) -> list[str]:
    """Make the missing ones of the secrets in `folder` and return their names. Those that exist are left alone.

    The folder is for its owner alone. What is in it is world-readable, because the containers' users, who have other
    ids, read it through bind mounts; the folder keeps other users of the machine out.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o755)
    made = []
    with _lock(folder):
        for name in NAMES:
            file = folder / name
            if not file.exists() or not file.stat().st_size:
                _write(file, secrets.token_urlsafe(24))
                made.append(name)
    return made


def replace_grafana_key(folder: Path, key: str) -> None:
    """Install the key of the backup that Grafana's data come from."""
    with _lock(folder):
        _write(folder / GRAFANA_KEY, key)


def _write(file: Path, secret: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.unlink(missing_ok=True)
    partial.write_text(secret)
    partial.chmod(0o444)
    partial.replace(file)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Only one process at a time creates secrets; others then find them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
