"""What must not be lost is there after `down`, after other images, and after a restore when everything was lost."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest

from stack import images
from stack.paths import PROJECT
from tests.kept import Kept
from tests.stack.conftest import UP_SECONDS, Stack

pytestmark = pytest.mark.stack

STATEFUL = ("postgres", "prometheus", "alertmanager", "grafana")


def keep(stack: Stack) -> Kept:
    return Kept(stack.url("app"), stack.url("alertmanager"), stack.url("prometheus"))


def make(stack: Stack, backups: Path, *command: str) -> str:
    """What a command of `make` prints, as it is run with Docker; it must succeed."""
    environment = {**stack.environment, "BACKUPS_DIR": str(backups)}
    result = subprocess.run(
        [sys.executable, "-m", "stack", *command],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * UP_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def lets_in(stack: Stack, password: str) -> bool:
    answer = httpx.get(f"{stack.url('grafana')}/api/datasources", auth=("admin", password))
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_other_images_find_the_data_of_the_former(stack: Stack, tmp_path: Path) -> None:
    """An upgrade: `down`, another reference in x-images, `up`."""
    kept = keep(stack)
    before = {service: container["Image"] for service, container in stack.containers().items()}
    (tmp_path / "Dockerfile").write_text("ARG IMAGE\nFROM $IMAGE\nLABEL upgraded=yes\n")
    override = "services:\n"
    for service in STATEFUL:
        tag = f"sightline-test-upgrade-{service}"
        stack.docker(
            "build", "--quiet", f"--build-arg=IMAGE={images.upstream()[service]}", f"--tag={tag}", str(tmp_path)
        )
        override += f"  {service}: {{image: {tag}}}\n"
    (tmp_path / "upgrade.yml").write_text(override)
    stack.compose("down")
    stack.environment["COMPOSE_FILE"] = f"{PROJECT / 'docker-compose.yml'}{os.pathsep}{tmp_path / 'upgrade.yml'}"
    try:
        stack.up()
        assert {service for service, one in stack.containers().items() if one["Image"] != before[service]} == {
            *STATEFUL
        }
        assert kept.missing() == []
    finally:
        del stack.environment["COMPOSE_FILE"]
        stack.up()
    assert {service: container["Image"] for service, container in stack.containers().items()} == before
    assert kept.missing() == []
    stack.docker("image", "rm", *(f"sightline-test-upgrade-{service}" for service in STATEFUL))


def test_a_backup_brings_everything_back(stack: Stack, tmp_path: Path) -> None:
    """Restored with other passwords than it was made with; and what was there before is kept, and can come back."""
    kept = keep(stack)
    started = {service: one["State"]["StartedAt"] for service, one in stack.containers().items()}
    print(make(stack, tmp_path, "backup"))
    stack.wait_until_healthy()
    now = {service: one["State"]["StartedAt"] for service, one in stack.containers().items()}
    assert {service for service in now if now[service] != started[service]} == {"prometheus", "alertmanager", "grafana"}

    (archive,) = tmp_path.glob("*.tar")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert names == ["manifest.json", "alertmanager.tar", "database.dump", "grafana.tar", "prometheus.tar"]
    old = stack.passwords()
    content = archive.read_bytes()
    assert not [name for name, value in old.items() if value.encode() in content]
    assert lets_in(stack, old["grafana_admin_password"])

    younger = keep(stack)
    shutil.move(stack.secrets, tmp_path / "secrets")
    print(make(stack, tmp_path, "restore", str(archive), "--yes"))
    assert kept.missing() == []
    assert {"row", "silence"} <= set(younger.missing())
    new = stack.passwords()
    assert not set(old.values()) & set(new.values())

    # Grafana keeps its users, and so their passwords, in its own database.
    assert lets_in(stack, old["grafana_admin_password"])
    assert not lets_in(stack, new["grafana_admin_password"])
    make(stack, tmp_path, "grafana-password")
    assert lets_in(stack, new["grafana_admin_password"])
    assert not lets_in(stack, old["grafana_admin_password"])

    (before,) = (file for file in tmp_path.glob("*.tar") if file != archive)
    shutil.rmtree(stack.secrets)
    shutil.move(tmp_path / "secrets", stack.secrets)
    make(stack, tmp_path, "restore", str(before), "--yes")
    assert kept.missing() + younger.missing() == []
    assert lets_in(stack, old["grafana_admin_password"])
