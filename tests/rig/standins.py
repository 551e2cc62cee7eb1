"""Stand-ins for upstream images that can't be pulled, built from Debian packages."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ops import images
from ops.console import step
from ops.errors import OpsError
from ops.packages import mirrors
from ops.shell import run, succeeds
from tests.rig.paths import HOME

LABEL = "sightline.stand-in"  # on every stand-in; its value is the version of what is really inside
SOURCES_LABEL = "sightline.stand-in.sources"  # the checksum of what it was built from
ASKED_LABEL = "sightline.stand-in.asked"  # on the containers that say what is inside
BASE = "sightline-stand-in-base"
SUITE = "trixie"  # has the Python (3.13) of the app's image
# debootstrap starts programs and mounts /proc and /sys into the new root: they end with this process, however it does.
ISOLATED = [
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--",
]
SOURCES = Path(__file__).parent / "images"


def missing(environment: Mapping[str, str]) -> dict[str, str]:
    """The upstream images that the engine does not have, or has as stand-ins of former sources."""
    return {name: image for name, image in images.upstream().items() if not _current(image, environment)}


def _current(image: str, environment: Mapping[str, str]) -> bool:
    try:
        (found,) = json.loads(run(["docker", "image", "inspect", image], environment))
    except OpsError:
        return False
    labels = found["Config"].get("Labels") or {}
    return LABEL not in labels or labels.get(SOURCES_LABEL) == _sources()


def _sources() -> str:
    """A checksum of everything that stand-ins are built from."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(SOURCES.iterdir()))).hexdigest()


def obtain(environment: Mapping[str, str]) -> None:
    """Have all upstream images: pull what is missing, build stand-ins for what can't be pulled."""
    wanted = missing(environment)
    if not wanted:
        return
    reason = images.pull(wanted.values(), environment)
    if reason:
        print(reason, file=sys.stderr)
        build_standins(missing(environment), environment)


def build_standins(wanted: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Build a stand-in under the reference of each image; see tests/rig/images/Dockerfile.

    Raises:
        OpsError: this machine can't (it takes root on Debian).
    """
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise OpsError(
            "Stand-ins are built from Debian packages: run this as root on Debian with debootstrap installed."
        )
    HOME.mkdir(exist_ok=True)
    with open(HOME / "images.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not succeeds(["docker", "image", "inspect", BASE], environment):
            with step(f"Making the stand-ins' base, a small Debian ({SUITE})"):
                _import_base(environment)
        # What a command that was killed has left. By this label of its own, as images pass theirs on to containers.
        run(["docker", "container", "prune", "--force", f"--filter=label={ASKED_LABEL}"], environment)
        run(["docker", "image", "prune", "--force", f"--filter=label={LABEL}"], environment)
        for name, image in wanted.items():
            with step(f"Building a stand-in for {image}"):
                _build(name, image, environment)


def _import_base(environment: Mapping[str, str]) -> None:
    # debootstrap and chroot would pass a TMPDIR on that the new root does not have
    plain = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    for killed in HOME.glob("base-*"):
        shutil.rmtree(killed)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="base-") as folder:
        root = Path(folder) / "root"
        options = ["--variant=minbase", "--include=ca-certificates"]
        run([*ISOLATED, "debootstrap", *options, SUITE, str(root), mirrors()["main"]], plain)
        # What this machine needs to reach its mirrors, a build needs too: its certificates and its apt's leniency.
        for certificate in images.CERTIFICATES.glob("*.crt"):
            shutil.copy(certificate, root / "usr/local/share/ca-certificates")
        run(["chroot", str(root), "update-ca-certificates"], plain)
        lenient = re.findall(r"^Acquire::Check-(?:Valid-Until|Date) .*$", run(["apt-config", "dump"]), re.MULTILINE)
        (root / "etc/apt/apt.conf.d/90machine").write_text("\n".join([*lenient, 'Acquire::Languages "none";', ""]))
        documentation = [f"/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude={path}\n" for path in documentation))
        unwanted = [f"--exclude=.{path}" for path in [*documentation, "/var/cache/apt/*", "/var/lib/apt/lists/*"]]
        archive = Path(folder) / "root.tar"
        run(["tar", "-C", str(root), *unwanted, "-cf", str(archive), "."])
        run(["docker", "import", str(archive), BASE], environment)


def _build(name: str, image: str, environment: Mapping[str, str]) -> None:
    """Build a stand-in, ask it what is inside, and build it again (all cached) with that as its label."""
    build = ["docker", "build", "--quiet", "--target", name, f"--build-arg=BASE={BASE}", str(SOURCES)]
    build += [f"--build-arg=TAG={image.rpartition(':')[2]}"]
    unlabelled = run([*build, f"--label={LABEL}="], environment)
    inside = ["docker", "run", "--rm", "--network=none", f"--label={ASKED_LABEL}", "--entrypoint=cat"]
    versions = ", ".join(run([*inside, unlabelled, "/etc/stand-in"], environment).splitlines())
    run(["docker", "image", "rm", unlabelled], environment)  # before there is the other: else nothing is missing then
    labels = [f"--label={LABEL}={versions}", f"--label={SOURCES_LABEL}={_sources()}"]
    run([*build, *labels, "--tag", image], environment)
