"""Official releases: fetched from a server of the test's own, verified, unpacked complete or not at all."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import images, releases
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.releases import PINS, Release, Store, UnavailableError
from tests.ops.publisher import NAME, Publisher, archive, release


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    try:
        yield publisher
    finally:
        publisher.server.shutdown()
        publisher.server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "releases", tmp_path / "archives")


def nothing_but(store: Store, *names: str) -> bool:
    """Whether the folder of releases has these entries (and its lock) and no half-unpacked one."""
    return {path.name for path in store.folder.iterdir()} == {"lock", *names}


def test_is_fetched_verified_and_unpacked(store: Store, publisher: Publisher) -> None:
    content = archive()
    publisher.serve(content)
    wanted = release(content, publisher.url)
    assert store.path(wanted, "prometheus") is None
    store.obtain(wanted)
    program = store.path(wanted, "prometheus")
    assert program is not None
    assert subprocess.run([program], capture_output=True, text=True).stdout == "9.9.9\n"
    assert nothing_but(store, "prometheus-9.9.9")
    store.obtain(wanted)
    assert publisher.downloads == 1


def test_from_a_mirror(store: Store, publisher: Publisher) -> None:
    content = archive()
    publisher.serve(content)
    Store(store.folder, store.archives, mirror=f"{publisher.url}/").obtain(release(content))
    assert nothing_but(store, "prometheus-9.9.9")


def test_an_archive_put_there_by_hand_needs_no_network(store: Store) -> None:
    content = archive()
    store.archives.mkdir()
    (store.archives / NAME).write_bytes(content)
    store.obtain(release(content))
    assert nothing_but(store, "prometheus-9.9.9")


def test_a_wrong_archive_by_hand_is_named_and_not_unpacked(store: Store) -> None:
    store.archives.mkdir()
    (store.archives / NAME).write_bytes(archive(padding=1))
    with pytest.raises(OpsError, match=f"{NAME} is not the release: its SHA-256 is"):
        store.obtain(release(archive()))
    assert nothing_but(store)


def test_a_wrong_hash_is_refused_and_nothing_is_kept(store: Store, publisher: Publisher) -> None:
    publisher.serve(archive(padding=1))
    with pytest.raises(OpsError, match=r"is not the release.*Nothing was unpacked"):
        store.obtain(release(archive(), publisher.url))
    assert nothing_but(store)
    assert not list(store.archives.iterdir())


def test_a_page_instead_of_the_archive(store: Store, publisher: Publisher) -> None:
    """As a captive portal answers."""
    publisher.serve(b"<html>Please log in</html>")
    with pytest.raises(OpsError, match="is not the release"):
        store.obtain(release(archive(), publisher.url))
    assert nothing_but(store)


def test_an_interrupted_download_is_retried_and_reported(store: Store, publisher: Publisher) -> None:
    content = archive(padding=300_000)
    publisher.serve(content, only=100_000)
    with pytest.raises(UnavailableError, match=f"{NAME} can't be fetched from 127.0.0.1:.*, the connection failed$"):
        store.obtain(release(content, publisher.url))
    assert publisher.downloads == 2
    assert not list(store.archives.iterdir())
    publisher.serve(content)
    store.obtain(release(content, publisher.url))
    assert nothing_but(store, "prometheus-9.9.9")


def test_a_server_that_stops_answering(store: Store, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive(padding=300_000)
    publisher.serve(content, pause=3)
    monkeypatch.setattr(releases, "READ_TIMEOUT", 0.5)
    with pytest.raises(UnavailableError, match="can't be fetched"):
        store.obtain(release(content, publisher.url))
    assert not list(store.archives.iterdir())


def test_a_missing_file(store: Store, publisher: Publisher) -> None:
    with pytest.raises(UnavailableError, match=f"{NAME} can't be fetched from .*, the answer is 404$"):
        store.obtain(release(archive(), publisher.url))
    assert nothing_but(store)


def test_no_server(store: Store) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 can't be reached$"):
        store.obtain(release(archive()))
    assert nothing_but(store)


def test_an_archive_without_the_program(store: Store) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("prometheus-9.9.9.linux-amd64/README"))
    store.archives.mkdir()
    (store.archives / NAME).write_bytes(buffer.getvalue())
    with pytest.raises(OpsError, match="has no prometheus, promtool"):
        store.obtain(release(buffer.getvalue()))
    assert nothing_but(store)


def test_no_release_for_another_architecture(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(UnavailableError, match=r"releases.toml has no SHA-256 for linux on riscv64"):
        store.obtain(releases.releases()["prometheus"])
    assert nothing_but(store)


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64")])
def test_the_archive_is_the_architectures_own(machine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    found = releases.releases()
    assert found["promtool"].archive == f"prometheus-{found['promtool'].version}.linux-{name}.tar.gz"
    assert all(f"linux-{name}" in release.archive or f"linux_{name}" in release.archive for release in found.values())


def test_every_pinned_version_has_its_sums() -> None:
    """docker-compose.yml and releases.toml say the same, for both architectures."""
    pinned = images.upstream()
    found = releases.releases()
    assert set(found) == {
        "prometheus", "promtool", "alertmanager", "amtool", "node_exporter", "postgres_exporter", "grafana"
    }  # fmt: skip
    for one in found.values():
        assert pinned[one.name.replace("_", "-")].removesuffix(one.version).endswith((":v", ":"))
        assert one.version in one.address
        assert one.version in one.archive
    sums = [line.partition('"')[2].rstrip('"') for line in PINS.read_text().splitlines() if line.startswith("linux-")]
    assert len(sums) == len(set(sums)) == 2 * len({one.name for one in found.values()})
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in sums)


def test_a_pin_without_checksums_is_reported() -> None:
    pinned = {**images.upstream(), "prometheus": "prom/prometheus:v33.1.0"}
    with pytest.raises(OpsError, match=r"releases.toml has no SHA-256 of prometheus 33\.1\.0"):
        releases.releases(pinned=pinned)


def test_a_full_disk(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    content = archive(padding=3_000_000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        store = Store(small / "releases", tmp_path / "archives")
        store.archives.mkdir()
        (store.archives / NAME).write_bytes(content)
        with pytest.raises(OpsError, match=f"No space is left for {NAME}"):
            store.obtain(release(content))
        assert nothing_but(store)
    finally:
        subprocess.run(["umount", small], check=True)


CHILD = f"""
import sys
from pathlib import Path
from ops.releases import Release, Store
folder, archives, address, digest = sys.argv[1:]
programs = {{"prometheus": "prometheus", "promtool": "promtool"}}
Store(Path(folder), Path(archives)).obtain(Release("prometheus", "9.9.9", "{NAME}", address, digest, programs))
"""


def child(store: Store, wanted: Release) -> subprocess.Popen[bytes]:
    arguments = [str(store.folder), str(store.archives), wanted.address, str(wanted.sha256)]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=PROJECT, stderr=subprocess.DEVNULL)


def test_two_at_once_fetch_it_once(store: Store, publisher: Publisher) -> None:
    content = archive(padding=300_000)
    publisher.serve(content, pause=1)
    both = [child(store, release(content, publisher.url)) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert publisher.downloads == 1
    assert nothing_but(store, "prometheus-9.9.9")


def test_killed_in_the_middle_of_a_download(store: Store, publisher: Publisher) -> None:
    content = archive(padding=300_000)
    wanted = release(content, publisher.url)
    publisher.serve(content, pause=5)
    process = child(store, wanted)
    deadline = time.monotonic() + 60
    while not publisher.downloads and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.path(wanted, "prometheus") is None
    publisher.serve(content)
    store.obtain(wanted)
    assert nothing_but(store, "prometheus-9.9.9")
    assert [path.name for path in store.archives.iterdir()] == [NAME]
