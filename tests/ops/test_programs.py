"""Which program runs: PATH, the official release or Debian's; and which PostgreSQL the data keep."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
from pathlib import Path

import pytest

from ops import postgres, programs, secrets
from ops.console import log
from ops.errors import OpsError
from ops.releases import Release, Store
from tests.ops.publisher import archive
from tests.running import temporary_folder

OLDER = 15  # of PostgreSQL, as Debian 12 has it
PROGRAMS = {"prometheus": "prometheus", "promtool": "promtool"}


def script(folder: Path, version: str) -> Path:
    """A `prometheus` that says this version."""
    folder.mkdir()
    file = folder / "prometheus"
    file.write_text(f"#!/bin/sh\necho prometheus, version {version}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Prometheus 9.9.9 is pinned, and no network has it."""
    content = archive()
    name = "prometheus-9.9.9.tar.gz"
    pinned = Release("prometheus", "9.9.9", name, "http://127.0.0.1:1", hashlib.sha256(content).hexdigest(), PROGRAMS)
    store = Store(tmp_path / "releases", tmp_path / "archives")
    store.archives.mkdir()
    monkeypatch.setattr(programs, "_releases", lambda: dict.fromkeys(PROGRAMS, pinned))
    monkeypatch.setattr(programs, "_store", lambda: store)
    monkeypatch.setattr(programs, "_tried", [])
    monkeypatch.setattr(programs, "_on_path", programs._on_path.__wrapped__)
    return pinned


def test_a_newer_one_on_path_is_taken(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = script(tmp_path / "bin", "10.0.0")
    monkeypatch.setenv("PATH", str(newer.parent), prepend=":")
    assert programs.find("prometheus")["prometheus"] == newer
    programs.fetch("prometheus")
    assert not programs._store().folder.exists()


def test_the_release_goes_before_an_older_one_on_path(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = script(tmp_path / "bin", "3.0.0")
    monkeypatch.setenv("PATH", str(older.parent), prepend=":")
    content = archive()
    monkeypatch.setattr(
        programs, "_releases", lambda: {"prometheus": changed(release, hashlib.sha256(content).hexdigest())}
    )
    (programs._store().archives / release.archive).write_bytes(content)
    programs.fetch("prometheus")
    assert programs.find("prometheus")["prometheus"] == programs._store().folder / "prometheus-9.9.9" / "prometheus"


def changed(release: Release, sha256: str) -> Release:
    return Release(release.name, release.version, release.archive, release.address, sha256, release.programs)


def test_an_older_one_on_path_serves_where_the_network_is_closed(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older = script(tmp_path / "bin", "3.0.0")
    monkeypatch.setenv("PATH", str(older.parent), prepend=":")
    with caplog.at_level("INFO", log.name):
        programs.fetch("prometheus", "promtool")
        programs.fetch("prometheus")
    assert programs.find("prometheus")["prometheus"] == older
    assert caplog.messages == ["127.0.0.1:1 can't be reached: not fetched: prometheus 9.9.9."]


def test_one_that_is_too_old_is_not_taken(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ancient = script(tmp_path / "bin", "2.10.0")
    monkeypatch.setenv("PATH", str(ancient.parent), prepend=":")
    assert programs.find("prometheus")["prometheus"] != ancient


def test_new_data_are_of_the_pinned_postgresql() -> None:
    program = programs.find("postgres")["postgres"]
    assert programs.version(program) >= programs.pinned_version("postgres")


def test_data_of_another_version_are_not_touched() -> None:
    """Nobody has PostgreSQL 12 any more."""
    folder = temporary_folder("sightline-old-")
    (folder / "PG_VERSION").write_text("12\n")
    with pytest.raises(
        OpsError, match=r"The data belong to PostgreSQL 12, which is not installed.*make backup.*into 18"
    ):
        postgres.initialise(folder, folder)
    assert [file.name for file in folder.iterdir()] == ["PG_VERSION"]


def test_data_keep_their_version_and_get_an_owner_of_their_own() -> None:
    """As a stack of the release before left them, root's even with `nobody` as their owner."""
    folder = temporary_folder("sightline-15-")
    folder.chmod(0o711)
    secrets.generate(folder / "secrets")
    postgres.initialise(folder / "data", folder / "secrets", new=OLDER)
    if os.geteuid() == 0:
        for path in (folder / "data", *(folder / "data").rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
    postgres.initialise(folder / "data", folder / "secrets")
    assert postgres.major(folder / "data") == OLDER
    owner = pwd.getpwuid((folder / "data").stat().st_uid).pw_name
    assert owner == ("sightline-postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    assert re.search(rf"^owner {owner} postgres$", (folder / "data" / "pg_ident.conf").read_text(), re.MULTILINE)
