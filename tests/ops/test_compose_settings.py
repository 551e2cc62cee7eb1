"""What Compose and the containers are given: settings, profiles, and digests of what is read at the start only."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops import configs, settings
from ops.docker import ComposeStack
from ops.paths import PROJECT
from ops.preflight import warn_of_unused_settings
from tests.ops.fake_docker import Docker


def test_a_store_for_years_adds_its_file_and_profile_to_those_of_the_user(tmp_path: Path) -> None:
    def made(**given: str) -> dict[str, str]:
        given = {"LONGTERM_RETENTION": "5y", "SIGHTLINE_STATE": str(tmp_path), **given}
        return ComposeStack(settings.load(given, tmp_path / "no .env")).environment

    added = made()
    assert added["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.remote-write.yml"
    assert (added["COMPOSE_PROFILES"], added["GRAFANA_PROVISIONING"]) == ("longterm", "longterm")
    assert added["REMOTE_WRITE_CONFIG"] == str(tmp_path / "remote-write" / "prometheus.yml")
    assert "REMOTE_WRITE_NETWORK" not in added, "it need not leave the stack's networks"
    theirs = made(COMPOSE_FILE="a.yml:b.yml", COMPOSE_PROFILES="mine")
    assert theirs["COMPOSE_FILE"] == "a.yml:b.yml:docker-compose.remote-write.yml"
    assert theirs["COMPOSE_PROFILES"] == "mine,longterm"
    elsewhere = made(LONGTERM_RETENTION="", REMOTE_WRITE_URL="https://metrics.example/api/v1/write")
    assert elsewhere["REMOTE_WRITE_NETWORK"] == "outside"
    assert "COMPOSE_PROFILES" not in elsewhere
    assert "COMPOSE_FILE" not in made(LONGTERM_RETENTION="")


def test_a_store_for_the_first_prometheus_only_is_reported(docker: Docker) -> None:
    """docker-compose.remote-write.yml gives its section to no second one: stores would get everything twice."""
    docker.override = {"services": {"prometheus-2": {}}}
    sentence = "The first Prometheus alone sends samples to the store"
    assert sentence in docker.ops("up", LONGTERM_RETENTION="5y").stdout
    assert sentence not in docker.ops("up").stdout


def test_what_prometheus_reads_is_written_before_it_starts_and_with_each_reload(docker: Docker) -> None:
    written = docker.folder / "state" / "remote-write" / "prometheus.yml"
    assert docker.ops("up").returncode == 0
    assert not written.exists()
    assert docker.ops("up", LONGTERM_RETENTION="5y").returncode == 0
    assert '"url": "http://victoriametrics:8428/api/v1/write"' in written.read_text()
    before = written.stat().st_ino
    written.write_text("old")
    assert docker.ops("reload", LONGTERM_RETENTION="5y").returncode == 0
    assert "remote_write" in written.read_text()
    assert written.stat().st_ino == before


def test_settings_that_no_container_gets_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Natively the service reads them; in Docker docker-compose.yml decides what it is given."""
    names = ("APP_WORKERS", "OPENAI_API_KEY", "DATABASE_HOST", "LOG_FORMAT", "APP_MAX_CONNECTIONS", "APP_PORT")
    (tmp_path / ".env").write_text("".join(f"{name}=1234\n" for name in names))
    stack = ComposeStack(settings.load({"SIGHTLINE_STATE": str(tmp_path / "state")}, tmp_path / ".env"))
    environment = {"DATABASE_HOST": "postgres", "APP_MAX_CONNECTIONS": "1234"}  # the second one by an override
    monkeypatch.setitem(stack.__dict__, "config", {"services": {"app": {"environment": environment}}})
    with caplog.at_level(logging.WARNING, "sightline.ops"):
        warn_of_unused_settings(stack)
    place = "set it under `environment` of `app` in docker-compose.override.yml."
    assert [record.message for record in caplog.records if record.name == "sightline.ops"] == [
        f".env: DATABASE_HOST has no effect in Docker; {place}",
        f".env: LOG_FORMAT has no effect in Docker; {place}",
        ".env: OPENAI_API_KEY has no effect in Docker; OPENAI_API_KEY_FILE names a file with it.",
    ]


def test_a_changed_key_makes_another_container(tmp_path: Path) -> None:
    """The service reads it at its start only; `up` compares variables, not files."""
    key = tmp_path / "key"
    key.write_text("first")

    def digest(**given: str) -> str:
        given = {"SIGHTLINE_STATE": str(tmp_path / "state"), **given}
        return ComposeStack(settings.load(given, tmp_path / "no .env")).environment["API_KEYS_DIGEST"]

    assert digest() == ""
    before = digest(OPENAI_API_KEY_FILE=str(key))
    assert before == digest(OPENAI_API_KEY_FILE=str(key)) != ""
    key.write_text("another")
    os.utime(key, (1, 1))
    assert digest(OPENAI_API_KEY_FILE=str(key)) not in ("", before)
    assert "${API_KEYS_DIGEST:-}" in (PROJECT / "docker-compose.yml").read_text()


def test_files_that_are_read_at_the_start_only_make_other_containers(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose does not look into what it mounts."""
    written = {"EXPORTER_OPTIONS_DIGEST": "postgres-exporter", "GRAFANA_PROVISIONING_DIGEST": "grafana"}
    docker.write()
    script = docker.folder / "bin" / "docker"
    script.write_text(script.read_text().replace('echo "$*"', f'echo "$* {" ".join(f"${one}" for one in written)}"', 1))
    command = [sys.executable, "-m", "ops", "down"]
    subprocess.run(command, cwd=PROJECT, env=docker.environment, check=True, capture_output=True)
    assert docker.asked("down")[0].split()[-2:] == [configs.read_at_start(server) for server in written.values()]
    assert all(f"${{{name}:-}}" in (PROJECT / "docker-compose.yml").read_text() for name in written)

    for places in configs.AT_START.values():
        for place in places:
            (tmp_path / "copy" / place).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (PROJECT / place).is_dir() else shutil.copy)(PROJECT / place, tmp_path / "copy" / place)
    monkeypatch.setattr(configs, "PROJECT", tmp_path / "copy")
    seen = [configs.read_at_start(*configs.AT_START)]
    for change in (
        "grafana/provisioning/datasources/sightline.yml",
        "app/llm/prices.toml",
        "postgres/init/99-mine.sql",
    ):
        with (tmp_path / "copy" / change).open("a") as file:
            file.write("# mine\n")
        seen.append(configs.read_at_start(*configs.AT_START))
    assert len({*seen}) == 4
    (tmp_path / "copy" / "app" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "copy" / "app" / "__pycache__" / "main.cpython-311.pyc").touch()
    assert configs.read_at_start(*configs.AT_START) == seen[-1], "Python's own files are no change"
