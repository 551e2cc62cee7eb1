"""Servers from Debian's packages, unpacked into `.native/packages`, where no official release is available.

Nothing is installed and no root is needed: apt downloads into a state of its own, checks Debian's signatures and the
packages' checksums as always, and `dpkg-deb` unpacks them into a folder that git ignores. Prometheus and its exporters
come from Debian 13 or newer (Go programs, which run on older releases too), PostgreSQL, Valkey and HAProxy from the
machine's own release (they must match the machine's C library).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ops.errors import OpsError
from ops.paths import HOME, locked, made_as_a_whole
from ops.shell import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SERVERS_SINCE = (13, "trixie")  # the first Debian release whose servers the configuration files are tested with
POSTGRES_SINCE = 15
VALKEY_SINCE = 13  # older releases of Debian have Redis, of which Valkey is a fork
VALKEY, REDIS = "valkey-server", "redis-server"


@dataclass(frozen=True)
class Program:
    """A program by its upstream name: where it is unpacked, its file there (a glob), the oldest version that works."""

    folder: str
    file: str
    minimum: tuple[int, ...]
    own: bool = False
    """Whether it comes from this machine's own Debian release, with the libraries that it needs."""


POSTGRES = ("postgres", "initdb", "psql", "pg_isready", "pg_dump", "pg_restore")
NEEDED = {
    "prometheus": Program("prometheus", "usr/bin/prometheus", (2, 53)),
    "promtool": Program("promtool", "usr/bin/promtool", (2, 53)),
    "alertmanager": Program("prometheus-alertmanager", "usr/bin/prometheus-alertmanager", (0, 28)),
    "amtool": Program("prometheus-alertmanager", "usr/bin/amtool", (0, 28)),
    "node_exporter": Program("prometheus-node-exporter", "usr/bin/prometheus-node-exporter", (1, 9)),
    "postgres_exporter": Program("prometheus-postgres-exporter", "usr/bin/prometheus-postgres-exporter", (0, 17)),
}
PROGRAMS = {
    **NEEDED,
    **{
        name: Program("postgresql", f"usr/lib/postgresql/*/bin/{name}", (POSTGRES_SINCE,), own=True)
        for name in POSTGRES
    },
    "victoria-metrics": Program("victoria-metrics", "usr/bin/victoria-metrics", (1, 112)),
    "haproxy": Program("haproxy", "usr/sbin/haproxy", (2, 6), own=True),
    VALKEY: Program("valkey", "usr/bin/[rv]*-server", (), own=True),
}

# Debian's Alertmanager and amtool read their default templates from a compiled-in folder that only an installed package
# has. Where it is missing they run in a mount namespace of their own, in which the unpacked files lie over /usr/share.
TEMPLATES = "/usr/share/prometheus/alertmanager"
WITH_TEMPLATES = f"""\
if [ ! -e {TEMPLATES}/default.tmpl ]; then
    user=$([ "$(id -u)" = 0 ] || echo --map-root-user)
    mount='cd "$0" && mount -t overlay templates -o lowerdir=usr/share:/usr/share /usr/share'
    unshare $user --mount -- sh -c "$mount" "$root" 2> /dev/null || {{
        echo "Debian's $(basename "$0") needs its templates. Once, as root:" \\
            "mkdir -p {Path(TEMPLATES).parent} && ln -s $root{TEMPLATES} {TEMPLATES}" >&2
        exit 1
    }}
    exec unshare $user --mount -- sh -c "($mount) && exec \\"\\$@\\"" "$root" "$root/FILE" "$@"
fi"""


def unpacked(name: str) -> Path | None:
    """The launcher of a program whose package is unpacked."""
    launcher = HOME / "packages" / PROGRAMS[name].folder / "bin" / name
    return launcher if launcher.exists() else None


def obtain(*names: str) -> None:
    """Unpack the packages of these programs, unless they are there.

    Raises:
        OpsError: this can't be done; the message shows what to install.
    """
    with lock():  # another process may have unpacked them while this one waited
        absent = [name for name in names if not unpacked(name)]
        if absent:
            unpack(absent)


def lock() -> AbstractContextManager[None]:
    """The lock of the folder that packages are unpacked into, also if `.native/packages` is a link to another one."""
    return locked((HOME / "packages").resolve().with_suffix(".lock"))


def unpack(names: Iterable[str]) -> None:
    _require_debian(names)
    number, codename = release()
    programs = {PROGRAMS[name].folder: PROGRAMS[name] for name in names}
    known: dict[str, Apt] = {}
    print(f"Unpacking Debian packages into {HOME}: {', '.join(sorted(programs))}", file=sys.stderr, flush=True)
    for folder, program in sorted(programs.items(), key=lambda item: item[1].own):
        suite = codename if program.own or number >= SERVERS_SINCE[0] else SERVERS_SINCE[1]
        apt = known.get(suite) or known.setdefault(suite, Apt(suite))
        needed = [folder]
        if program.own:
            package = (VALKEY if number >= VALKEY_SINCE else REDIS) if folder == "valkey" else folder
            # Just-in-time compilation is switched off, and its compiler is larger than all the rest.
            needed = [one for one in apt.dependencies(package) if not one.startswith("libllvm")]
        place(folder, apt.download(needed))


def release() -> tuple[float, str]:
    """This machine's Debian release and its codename (testing and unstable have no number: newer than all).

    (0, "") on any other system.
    """
    try:
        facts = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    except OSError:
        return 0, ""
    return (
        (float(facts.get("VERSION_ID", "inf")), facts["VERSION_CODENAME"]) if facts.get("ID") == "debian" else (0, "")
    )


def _require_debian(names: Iterable[str]) -> None:
    tools = all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb")) and KEYRING.exists()
    if not release()[0] or not tools:
        titles = {VALKEY: f"{VALKEY} or {REDIS}", **dict.fromkeys(POSTGRES, f"PostgreSQL {POSTGRES_SINCE} or newer")}
        minimum = {name: ".".join(map(str, PROGRAMS[name].minimum)) for name in names}
        wanted = [titles.get(name, f"{name} {minimum[name]} or newer") for name in names]
        raise OpsError(
            "Install and put on PATH: " + ", ".join(dict.fromkeys(wanted)) + "."
            " (Only on Debian can they be unpacked from packages without installing.)"
        )


class Apt:
    """apt with a separate state that has one release of Debian, from the mirror that this machine uses."""

    def __init__(self, suite: str, home: Path = HOME) -> None:
        self.folder = home / "apt" / suite
        for folder in ("lists/partial", "cache/archives/partial", "debs"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        # The machine's own settings (such as a proxy) are read first, then these. Its hooks are for its own apt.
        (self.folder / "apt.conf").write_text(
            "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear DPkg;\n"
            f'Dir::Etc::sourcelist "{self.folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
            f'Dir::Etc::preferences "/dev/null";\nDir::Etc::preferencesparts "/dev/null";\n'
            f'Dir::State "{self.folder}";\nDir::State::lists "{self.folder}/lists";\n'
            'Dir::State::status "/var/lib/dpkg/status";\n'
            f'Dir::Cache "{self.folder}/cache";\nAcquire::Languages "none";\nAPT::Install-Recommends "false";\n'
            'APT::Sandbox::User "root";\n'  # apt's own user may be unable to enter the project's folder
        )
        addresses = mirrors()
        sources = [(addresses["main"], suite)]
        if "security" in addresses:
            sources.append((addresses["security"], f"{suite}-security"))
        (self.folder / "sources.list").write_text(
            "".join(f"deb [signed-by={KEYRING}] {mirror} {name} main\n" for mirror, name in sources)
        )
        self._apt("update", "-qq")

    def dependencies(self, package: str) -> list[str]:
        """`package` and what it needs that this machine lacks."""
        plan = self._apt("install", "--simulate", "-q", package)
        return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)

    def download(self, packages: list[str]) -> list[Path]:
        """The packages' files, their signatures and checksums verified by apt."""
        folder = self.folder / "debs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._apt("download", "-qq", *packages, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        return run(["apt-get", "-c", str(self.folder / "apt.conf"), *arguments], {**os.environ, "LC_ALL": "C"}, cwd)


def mirrors() -> dict[str, str]:
    """The addresses of Debian's archive and of its security updates, as this machine's apt is set up to use them.

    Raises:
        OpsError: apt has no mirror of Debian.
    """
    uris = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True).stdout
    mirrors: dict[str, str] = {}
    for address, suite in re.findall(r"^'(\S+)/dists/(\S+)/InRelease'", uris, re.MULTILINE):
        if suite in (release()[1], "stable", "oldstable", "testing", "unstable", "sid"):
            mirrors.setdefault("main", address)
        elif suite.endswith("-security"):
            mirrors.setdefault("security", address)
    if "main" not in mirrors:
        raise OpsError("apt has no Debian mirror: add one to /etc/apt/sources.list.")
    return mirrors


def place(name: str, debs: list[Path]) -> None:
    """Unpack packages to their final place."""
    with made_as_a_whole(HOME / "packages" / name) as folder:
        for deb in debs:
            subprocess.run(["dpkg-deb", "--extract", deb, folder], check=True)
        _write_launchers(folder)


def _write_launchers(root: Path) -> None:
    """`bin/NAME` for every program in `root`: upstream's name and flags, Debian's peculiarities filled in."""
    (root / "bin").mkdir()
    here = 'root=$(dirname "$(dirname "$(readlink -f "$0")")")'
    folders = ":".join(f"$root/{path.relative_to(root)}" for path in (root / "usr/lib").glob("*-linux-*"))
    for name, program in PROGRAMS.items():
        for file in (path.relative_to(root) for path in root.glob(program.file)):
            prepare = f'export LD_LIBRARY_PATH="{folders}"' if program.own else ""
            if name in ("alertmanager", "amtool"):
                prepare = WITH_TEMPLATES.replace("FILE", str(file))
            flags = '--web.local-assets="$root/usr/share/prometheus/web/"' if name == "prometheus" else ""
            launcher = root / "bin" / name
            launcher.write_text(f'#!/bin/sh\n{here}\n{prepare}\nexec "$root/{file}" {flags} "$@"\n')
            launcher.chmod(0o755)
