"""Official releases of the servers, in the versions that docker-compose.yml pins: fetched, verified, unpacked.

    prometheus-3.13.4.linux-amd64.tar.gz  ->  .native/releases/prometheus-3.13.4/prometheus, .../promtool

Nothing is run or unpacked whose SHA-256 is not the one in ops/releases.toml, wherever it comes from: the publisher, a
mirror (RELEASES_MIRROR) or the folder of archives (RELEASES_DIR), into which they may also be put by hand. A release
appears in its place complete or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import platform
import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops import images
from ops.console import log
from ops.errors import OpsError
from ops.paths import PROJECT, locked

if TYPE_CHECKING:
    import requests

PINS = PROJECT / "ops" / "releases.toml"
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
CONNECT_TIMEOUT = 3.0  # seconds until a network counts as closed
READ_TIMEOUT = 30.0  # seconds without a byte until a download counts as stuck


class UnavailableError(OpsError):
    """The release is not available now; another version may be used instead."""


@dataclass(frozen=True, eq=False)
class Release:
    """One version of one server for this machine."""

    name: str
    version: str
    archive: str  # file name
    address: str  # of the folder that has it, at its publisher
    sha256: str | None  # None: none is known for this kind of machine
    programs: Mapping[str, str]  # program -> its file in the archive, below the archive's one folder


def releases(pins: Path = PINS, pinned: Mapping[str, str] | None = None) -> dict[str, Release]:
    """Program -> the release that has it.

    Args:
        pinned: name and reference of each image, those of docker-compose.yml unless given.

    Raises:
        OpsError: docker-compose.yml pins a version whose sums are missing.
    """
    fill = {"system": sys.platform, "machine": MACHINES.get(platform.machine().lower(), platform.machine())}
    pinned = pinned or images.upstream()
    found = {}
    for name, facts in tomllib.loads(pins.read_text()).items():
        version = pinned[name.replace("_", "-")].rpartition(":")[2].removeprefix("v")
        sums = facts["sha256"].get(version)
        if sums is None:
            raise OpsError(f"{pins.name} has no SHA-256 of {name} {version}, which docker-compose.yml pins: add it.")
        release = Release(
            name,
            version,
            facts["archive"].format(version=version, **fill),
            facts["address"].format(version=version),
            sums.get("{system}-{machine}".format(**fill)),
            facts["programs"],
        )
        found.update(dict.fromkeys(facts["programs"], release))
    return found


class Store:
    """The unpacked releases in `folder`, and the archives that they come from.

    Args:
        archives: where archives are kept; those put there by hand are verified like the fetched ones.
        mirror: an address that has all archives under their names, instead of their publishers'.
    """

    def __init__(self, folder: Path, archives: Path, mirror: str = "") -> None:
        self.folder = folder
        self.archives = archives
        self.mirror = mirror.rstrip("/")
        self._closed: set[str] = set()  # hosts that can't be reached, not to be tried again

    def path(self, release: Release, program: str) -> Path | None:
        """The program, if its release is unpacked."""
        file = self._place(release) / release.programs[program]
        return file if file.exists() else None

    def obtain(self, release: Release) -> None:
        """Fetch and unpack the release, unless it is there.

        Raises:
            UnavailableError: neither the folder of archives nor the network has it; the reason, without a full stop.
            OpsError: what was found is not the release, or there is no room for it.
        """
        with locked(self.folder / "lock"):
            if self._place(release).exists():
                return
            try:
                self._unpack(release, self._archive(release))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise OpsError(f"No space is left for {release.archive} in {self.folder} or {self.archives}.") from None

    def _place(self, release: Release) -> Path:
        return self.folder / f"{release.name}-{release.version}"

    def _archive(self, release: Release) -> Path:
        if release.sha256 is None:
            raise UnavailableError(f"{PINS.name} has no SHA-256 for {sys.platform} on {platform.machine()}")
        file = self.archives / release.archive
        if not file.exists():
            self._download(release)
        with open(file, "rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != release.sha256:
            raise OpsError(
                f"{file} is not the release: its SHA-256 is {found} instead of {release.sha256}. Replace or remove it."
            )
        return file

    def _download(self, release: Release) -> None:
        import pooch  # these two take longer than all else that a command imports, and few commands fetch anything
        import requests

        url = f"{self.mirror or release.address}/{release.archive}"
        host = _host(url)
        try:
            if host not in self._closed:
                requests.head(url, timeout=CONNECT_TIMEOUT, allow_redirects=False)
        except requests.RequestException:
            self._closed.add(host)
        if host in self._closed:
            raise UnavailableError(f"{host} can't be reached")
        log.info("Fetching %s from %s", release.archive, host)
        pooch.get_logger().setLevel(logging.WARNING)
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        for leftover in self.archives.glob("tmp*"):  # of a download that was killed
            leftover.unlink()
        fetcher = pooch.create(
            self.archives,
            base_url=url.rpartition("/")[0] + "/",
            registry={release.archive: f"sha256:{release.sha256}"},
            retry_if_failed=1,
        )
        try:
            fetcher.fetch(release.archive, downloader=downloader)
        except ValueError:
            raise OpsError(
                f"{url} is not the release: its SHA-256 differs from the one in {PINS.name}. Nothing was unpacked."
            ) from None
        except requests.RequestException as error:
            raise UnavailableError(f"{release.archive} can't be fetched from {host}, {reason(error)}") from None

    def _unpack(self, release: Release, archive: Path) -> None:
        partial = self.folder / f".{release.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with tarfile.open(archive) as content:
                # Python 3.11.2, Debian 12's, has no filters.
                content.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                content.extractall(partial)  # noqa: S202  its checksum is the pinned one
            (top,) = partial.iterdir()
            missing = [file for file in release.programs.values() if not (top / file).exists()]
            if missing:
                raise OpsError(f"{archive} has no {', '.join(missing)}; {PINS.name} defines where they should be.")
            top.rename(self._place(release))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _host(url: str) -> str:
    return re.sub(r"^\w+://([^/@]*@)?([^/]*).*", r"\2", url)


def reason(error: requests.RequestException) -> str:
    """Why a request failed, in words."""
    if error.response is not None:
        return f"the answer is {error.response.status_code}"
    import requests

    return "it does not answer in time" if isinstance(error, requests.Timeout) else "the connection failed"
