"""Backup, restore and clean of a native stack: interrupted, failing or killed, they lose nothing."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops import secrets
from ops.paths import PROJECT
from ops.programs import find
from tests.disk import small_disk
from tests.kept import Kept
from tests.ops.native import SERVERS, Stack
from tests.running import default_signals, wait_until

# Copying takes as long as the test needs to see that the servers are stopped. In short sleeps: a signal that arrives
# between Python's last look for one and the system call is handled when the call returns.
ENDLESS_BACKUP = """
import sys, time
from ops.__main__ import main
from ops.processes import ProcessStack
def pack(*_):
    while True:
        time.sleep(0.1)
ProcessStack.pack = pack
sys.exit(main(["backup", "MODE=native"]))
"""


@pytest.mark.attack("make backup interrupted")
def test_an_interrupted_backup_leaves_everything_running_and_nothing_behind(stack: Stack) -> None:
    backups = Path(stack.environment["BACKUPS_DIR"])
    backups.mkdir(mode=0o700, exist_ok=True)
    (backups / ".partial-killed").mkdir()
    before = {server: stack.pid(server) for server in SERVERS}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS_BACKUP],
        env=stack.environment,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    ) as run:
        wait_until(lambda: stack.supervisor.processes()["prometheus"]["statename"] == "STOPPED")
        run.send_signal(signal.SIGHUP)
        _, complaint = run.communicate(timeout=300)
    assert (run.returncode, complaint) == (130, "Interrupted. \n")
    assert {one["statename"] for one in stack.supervisor.processes().values()} == {"RUNNING"}
    assert stack.pid("prometheus") != before["prometheus"]
    assert list(backups.iterdir()) == []
    wait_until(stack.healthy, interval=1)


@pytest.mark.attack("make backup without room, or without its folder", tried=2)
def test_a_backup_that_cannot_be_written_says_so_in_one_line_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        result = stack.run("backup", BACKUPS_DIR=str(disk))
        assert list(disk.iterdir()) == []
    assert result.returncode == 1
    assert re.fullmatch(rf"{disk}/\S+\.tar cannot be written: No space left on device\.\n", result.stderr), (
        result.stderr
    )
    vanishes = tmp_path / "vanishes"
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(stack.run, "backup", BACKUPS_DIR=str(vanishes))
        wait_until(lambda: list(vanishes.glob(".partial-*")), interval=0.01)
        vanishes.rename(tmp_path / "gone")
    result = run.result()
    assert result.returncode == 1
    assert re.fullmatch(rf"{vanishes}/\S+\.tar cannot be written: No such file or directory\.\n", result.stderr)
    assert not vanishes.exists()
    assert {one["statename"] for one in stack.supervisor.processes().values()} == {"RUNNING"}


def keep(stack: Stack) -> Kept:
    def address(server: str) -> str:
        return f"http://127.0.0.1:{stack.port(server)}"

    kept = Kept(address("app"), address("alertmanager"), address("prometheus"))
    database(stack).write_text(kept.name)
    return kept


def database(stack: Stack) -> Path:
    """Where Grafana would have its database; here the test writes it."""
    return stack.state / "data" / "grafana" / "grafana.db"


def archives(stack: Stack) -> list[Path]:
    return sorted(Path(stack.environment["BACKUPS_DIR"]).iterdir())


def half(content: bytes) -> bytes:
    return content[: len(content.rstrip(b"\0")) // 2]  # of what says something: a tar file ends with zeros


def forged(archive: Path, copy: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """A copy of an archive with another manifest and other parts, but no damage that a checksum would show."""
    with tarfile.open(archive) as tar:
        parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    manifest = json.loads(parts.pop("manifest.json"))
    change(manifest, parts)
    for name, content in parts.items():
        manifest["parts"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with tarfile.open(copy, "w") as tar:
        for name, content in {"manifest.json": json.dumps(manifest).encode(), **parts}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return copy


def test_backup_and_restore(stack: Stack, tmp_path: Path) -> None:
    kept = keep(stack)
    result = stack.run("backup")
    assert result.returncode == 0, result.stderr
    assert {process["statename"] for process in stack.supervisor.processes().values()} == {"RUNNING"}
    (archive,) = archives(stack)
    assert str(archive) in result.stdout
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert stat.S_IMODE(archive.parent.stat().st_mode) == 0o700
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        dump = tar.extractfile("database.dump")
        assert dump is not None
        sql = subprocess.run([find("pg_restore")["pg_restore"], "-f", "-"], input=dump.read(), capture_output=True)
    parts = ["alertmanager.tar", "database.dump", "grafana.tar", "grafana_secret_key", "prometheus.tar"]
    assert names == ["manifest.json", *parts]
    assert kept.name.encode() in sql.stdout
    folder = Path(stack.environment["SECRETS_DIR"])
    old = {name: (folder / name).read_bytes() for name in secrets.NAMES}
    grafana_key = old.pop(secrets.GRAFANA_KEY)
    assert not [name for name, value in old.items() if value in archive.read_bytes() + sql.stdout]

    # Refused with one line, and nothing is changed.
    content = archive.read_bytes()
    spot = content.index(b"PGDMP") + 1000
    (tmp_path / "flipped.tar").write_bytes(content[:spot] + bytes([content[spot] ^ 1]) + content[spot + 1 :])
    (tmp_path / "half.tar").write_bytes(half(content))
    (tmp_path / "words.tar").write_text("no archive at all\n" * 1000)
    forged(archive, tmp_path / "newer.tar", lambda manifest, _: manifest["versions"].update(postgres="99.1"))
    forged(archive, tmp_path / "other.tar", lambda manifest, _: manifest.update(sightline=2))
    forged(archive, tmp_path / "more.tar", lambda _, parts: parts.update({"../../x": b""}))
    forged(archive, tmp_path / "key.tar", lambda _, parts: parts.update({secrets.GRAFANA_KEY: b"\xff\xfe"}))
    forged(archive, tmp_path / "no-tar.tar", lambda _, parts: parts.update({"prometheus.tar": b"not a tar" * 1000}))
    forged(
        archive, tmp_path / "cut.tar", lambda _, parts: parts.update({"prometheus.tar": half(parts["prometheus.tar"])})
    )
    before = {server: stack.pid(server) for server in SERVERS}
    for name, says in {
        "": "Set FROM= to the backup to restore. The newest is",
        "nowhere.tar": f"nowhere.tar does not exist. The newest is {archive}.",
        "flipped.tar": "is damaged: ",
        "half.tar": "is damaged, or not a backup",
        "words.tar": "is not a backup of this stack",
        "newer.tar": "contains data of postgres 99.1, which postgres",
        "other.tar": "is damaged, or not a backup",
        "more.tar": "is damaged, or not a backup",
        "key.tar": "is damaged, or not a backup",
        "no-tar.tar": "is damaged, or not a backup",
        "cut.tar": "is damaged, or not a backup",
    }.items():
        result = stack.run("restore", f"FROM={tmp_path / name}" if name else "FROM=", "CONFIRM=1")
        assert result.returncode == 1, name
        assert says in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    result = stack.run("restore", f"FROM={archive}")
    assert result.returncode == 1
    assert "Nothing was changed. CONFIRM=1 answers yes." in result.stderr
    assert {server: stack.pid(server) for server in SERVERS} == before
    assert archives(stack) == [archive]

    # Everything is lost, even the passwords; only the archive is left.
    assert stack.run("clean", "CONFIRM=1").returncode == 0
    shutil.rmtree(folder)
    result = stack.run("restore", f"FROM={archive}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert kept.missing() == []
    assert database(stack).read_text() == kept.name
    assert not set(old.values()) & {(folder / name).read_bytes() for name in secrets.NAMES}
    assert (folder / secrets.GRAFANA_KEY).read_bytes() == grafana_key, "Grafana's data are encrypted with it"
    assert stat.S_IMODE((folder / secrets.GRAFANA_KEY).stat().st_mode) == 0o444
    assert archives(stack) == [archive], "there was nothing to keep"


@pytest.mark.attack("make restore fails")
def test_a_restore_that_fails_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    kept = keep(stack)
    whole = next(file for file in archives(stack) if "before" not in file.name)
    broken = forged(whole, tmp_path / "broken.tar", lambda _, parts: parts.update({"database.dump": b"PGDMP nonsense"}))
    result = stack.run("restore", f"FROM={broken}", "CONFIRM=1")
    assert result.returncode == 1
    assert "Loading failed: pg_restore" in result.stderr
    assert "Nothing was restored; the previous data are back." in result.stderr
    assert "Traceback" not in result.stderr
    assert kept.missing() == []
    assert database(stack).read_text() == kept.name
    (before,) = (file for file in archives(stack) if "before-restore" in file.name)
    with tarfile.open(before) as tar:
        assert "postgres.tar" in tar.getnames()


@pytest.mark.attack("make restore killed", tried=2)
def test_a_killed_restore_has_changed_nothing_or_is_to_be_done_again(stack: Stack) -> None:
    """Killed while it loads: there is no chance to put anything right."""
    kept = keep(stack)
    whole = next(file for file in archives(stack) if "before" not in file.name)

    def kill_a_restore() -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [sys.executable, "-m", "ops", "restore", f"FROM={whole}", "CONFIRM=1", "MODE=native"],
            env=stack.environment,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        ) as run:
            wait_until((stack.state / "data.new").exists, interval=0.01)
            run.kill()
        return stack.run("up")

    result = kill_a_restore()
    assert result.returncode == 0, result.stderr
    assert "Removing the data of an unfinished restore, which replaced nothing\n" in result.stdout
    assert kept.missing() == []
    assert stack.run("clean", "CONFIRM=1").returncode == 0
    result = kill_a_restore()
    assert (result.returncode, result.stderr) == (
        1,
        f"A restore was interrupted, the data are incomplete. `make restore FROM={whole}` does it again.\n",
    )
    result = stack.run("restore", f"FROM={whole}", "CONFIRM=1")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in stack.state.glob("data*")] == ["data"]


def test_clean_asks_and_then_removes_the_data(made: Stack) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "ops", "clean", "MODE=native"],
        env=made.environment,
        cwd=made.project,
        input="n\n",
        text=True,
    )
    assert refused.returncode == 1
    assert (made.state / "data" / "postgres").exists()
    assert made.run("clean", "CONFIRM=1").returncode == 0
    assert not (made.state / "data").exists()
