"""What must not be lost is there after `down`, after other images, and after a restore when everything was lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tarfile
from pathlib import Path

import httpx2
import pytest

from ops import images, secrets
from ops.paths import PROJECT
from tests.kept import Kept
from tests.ops.docker.conftest import Stack

pytestmark = pytest.mark.stack

STATEFUL = ("postgres", "prometheus", "alertmanager", "grafana")


def keep(stack: Stack) -> Kept:
    return Kept(stack.url("proxy"), stack.url("alertmanager"), stack.url("prometheus"))


def lets_in(stack: Stack, password: str) -> bool:
    answer = httpx2.get(f"{stack.url('grafana')}/api/datasources", auth=("admin", password), timeout=60)
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_a_second_up_has_edited_configuration_read_and_names_a_refused_one(stack: Stack, tmp_path: Path) -> None:
    """The alerts' rules and the routes, as Prometheus and Alertmanager see them through their mounts."""
    copies = {name: shutil.copytree(PROJECT / name, tmp_path / name) for name in ("prometheus", "alertmanager")}
    override = "services:\n"
    for name, folder in copies.items():
        override += f"  {name}: {{volumes: ['{folder}:/etc/{name}:ro']}}\n"
    (tmp_path / "edited.yml").write_text(override)
    stack.environment["COMPOSE_FILE"] = f"{PROJECT / 'docker-compose.yml'}{os.pathsep}{tmp_path / 'edited.yml'}"
    rules, routes = copies["prometheus"] / "rules" / "added.yml", copies["alertmanager"] / "alertmanager.yml"
    try:
        stack.make("up")
        before = {service: one["Id"] for service, one in stack.containers().items()}
        rules.write_text("groups: [{name: added, rules: [{record: one, expr: '1'}]}]\n")
        routes.write_text(routes.read_text().replace("group_wait: 30s", "group_wait: 31s", 1))
        print(stack.make("up"))
        groups = stack.prometheus.api("rules")["groups"]
        assert "added" in {group["name"] for group in groups}
        taken = httpx2.get(f"{stack.url('alertmanager')}/api/v2/status", timeout=60).json()["config"]["original"]
        assert "group_wait: 31s" in taken
        routes.write_text("route: {receiver: nobody}\n")
        for command in ("reload", "up"):
            refused = stack.try_to_make(command)
            assert refused.returncode == 1
            assert "alertmanager rejects its configuration and keeps the previous one" in refused.stderr
            assert "Everything is healthy" not in refused.stdout
        assert {service: one["Id"] for service, one in stack.containers().items()} == before
    finally:
        del stack.environment["COMPOSE_FILE"]
        stack.up()


def test_invalid_settings_are_reported_in_one_line(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    for name, value, says in (
        ("APP_PORT", "9000-9010", "APP_PORT is '9000-9010'; it must be a port number from 1 to 65535.\n"),
        ("OPENAI_API_KEY_FILE", str(tmp_path / "key"), "The containers' users can't read "),
    ):
        refused = stack.try_to_make("up", settings={name: value})
        assert refused.returncode == 1
        assert refused.stderr.startswith(says), refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_alertmanager_can_be_closed_as_the_document_says(stack: Stack, tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```$", (PROJECT / "docs" / "security.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "docker-compose.override.yml").write_text(block)
    files = ("-f", str(PROJECT / "docker-compose.yml"), "-f", str(tmp_path / "docker-compose.override.yml"))
    services = json.loads(stack.compose(*files, "config", "--format=json"))["services"]
    assert {name for name, service in services.items() if service.get("ports")} == {"proxy", "prometheus", "grafana"}


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


def test_a_backup_brings_everything_back(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restored with other passwords than it was made with; and what was there before is kept, and can come back."""
    monkeypatch.setitem(stack.environment, "BACKUPS_DIR", str(tmp_path))
    kept = keep(stack)
    started = {service: one["State"]["StartedAt"] for service, one in stack.containers().items()}
    print(stack.make("backup"))
    stack.wait_until_healthy()
    now = {service: one["State"]["StartedAt"] for service, one in stack.containers().items()}
    assert {service for service in now if now[service] != started[service]} == {"prometheus", "alertmanager", "grafana"}

    (archive,) = tmp_path.glob("*.tar")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    parts = ["alertmanager.tar", "database.dump", "grafana.tar", "grafana_secret_key", "prometheus.tar"]
    assert names == ["manifest.json", *parts]
    old = stack.passwords()
    grafana_key = old.pop(secrets.GRAFANA_KEY)
    content = archive.read_bytes()
    assert not [name for name, value in old.items() if value.encode() in content]
    assert lets_in(stack, old["grafana_admin_password"])

    younger = keep(stack)
    shutil.move(stack.secrets, tmp_path / "secrets")
    print(stack.make("restore", f"FROM={archive}", "CONFIRM=1"))
    assert kept.missing() == []
    assert {"row", "silence"} <= set(younger.missing())
    new = stack.passwords()
    assert new[secrets.GRAFANA_KEY] == grafana_key, "Grafana's data are encrypted with it"
    assert not set(old.values()) & set(new.values())

    # Grafana keeps its users, and so their passwords, in its own database.
    assert lets_in(stack, old["grafana_admin_password"])
    assert not lets_in(stack, new["grafana_admin_password"])
    stack.make("grafana-password")
    assert lets_in(stack, new["grafana_admin_password"])
    assert not lets_in(stack, old["grafana_admin_password"])

    (before,) = (file for file in tmp_path.glob("*.tar") if file != archive)
    shutil.rmtree(stack.secrets)
    shutil.move(tmp_path / "secrets", stack.secrets)
    stack.make("restore", f"FROM={before}", "CONFIRM=1")
    assert stack.passwords()[secrets.GRAFANA_KEY] == grafana_key, (
        "the archive holds none that was created for the restore"
    )
    assert kept.missing() + younger.missing() == []
    assert lets_in(stack, old["grafana_admin_password"])
