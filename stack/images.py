"""Images that the compose file starts from: which are missing, pulling them, and stand-ins where that fails."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from native.errors import NativeError
from native.packages import mirrors
from stack.paths import HOME, PROJECT
from stack.steps import step

LABEL = "sightline.stand-in"  # on every stand-in; its value is the version of what is really inside
BASE = "sightline-stand-in-base"
SUITE = "trixie"  # has the Python (3.13) of the app's image
SOURCES = Path(__file__).parent / "images"
CERTIFICATES = Path("/usr/local/share/ca-certificates")  # where Debian keeps certificates that this machine adds


def upstream() -> dict[str, str]:
    """Name and reference of every upstream image, as the block `x-images` of docker-compose.yml lists them."""
    text = (PROJECT / "docker-compose.yml").read_text()
    block = re.search(r"^x-images:.*\n((?:[ #].*\n)+)", text, re.MULTILINE)
    images = re.findall(r"^  ([a-z-]+): &\S+ (\S+)", block[1] if block else "", re.MULTILINE)
    if not images:
        raise NativeError("docker-compose.yml has no block x-images.")
    return dict(images)


def missing(environment: Mapping[str, str]) -> dict[str, str]:
    """The upstream images that the engine does not have."""
    return {
        name: image
        for name, image in upstream().items()
        if subprocess.run(["docker", "image", "inspect", image], env=environment, capture_output=True).returncode
    }


def pull(images: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Pull images; why it failed, None if it did not."""
    for image in images.values():
        with step(f"Pulling {image}"):
            result = subprocess.run(
                ["docker", "pull", "--quiet", image], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        if result.returncode:
            return " ".join(result.stderr.split())
    return None


def obtain(environment: Mapping[str, str]) -> None:
    """Have all upstream images: pull what is missing, build stand-ins for what can't be pulled."""
    wanted = missing(environment)
    if not wanted:
        return
    reason = pull(wanted, environment)
    if reason:
        print(f"    cannot pull: {reason}", flush=True)
        build_standins(missing(environment), environment)


def build_standins(images: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Build a stand-in under the reference of each image; see stack/images/Dockerfile.

    Raises NativeError where this machine can't (it takes root on Debian).
    """
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise NativeError("Stand-ins are built from Debian packages: run this as root on Debian with debootstrap installed.")
    HOME.mkdir(exist_ok=True)
    with open(HOME / "images.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _docker(["image", "inspect", BASE], environment).returncode:
            with step(f"Making the stand-ins' base, a small Debian ({SUITE})"):
                _import_base(environment)
        for name, image in images.items():
            with step(f"Building a stand-in for {image}"):
                _build(name, image, environment)


def certificates() -> Path | None:
    """The folder of the certificates that this machine adds to the usual ones, if it has any."""
    return CERTIFICATES if any(CERTIFICATES.glob("*.crt")) else None


def _import_base(environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=HOME, prefix="base-") as folder:
        root = Path(folder) / "root"
        _run(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root), mirrors()["main"]])
        # What this machine needs to reach its mirrors, a build needs too: its certificates and its apt's leniency.
        for certificate in CERTIFICATES.glob("*.crt"):
            shutil.copy(certificate, root / "usr/local/share/ca-certificates")
        _run(["chroot", str(root), "update-ca-certificates"])
        settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        lenient = re.findall(r"^Acquire::Check-(?:Valid-Until|Date) .*$", settings, re.MULTILINE)
        (root / "etc/apt/apt.conf.d/90machine").write_text("\n".join([*lenient, 'Acquire::Languages "none";', ""]))
        unwanted = ["./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*"]
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude={path[1:]}\n" for path in unwanted[2:]))
        archive = Path(folder) / "root.tar"
        _run(["tar", "-C", str(root), *(f"--exclude={path}" for path in unwanted), "-cf", str(archive), "."])
        _check(_docker(["import", str(archive), BASE], environment))


def _build(name: str, image: str, environment: Mapping[str, str]) -> None:
    arguments = [f"--build-arg=BASE={BASE}", f"--build-arg=TAG={image.rpartition(':')[2]}", "--target", name, str(SOURCES)]
    unlabelled = _check(_docker(["build", "--quiet", *arguments], environment))
    about = _check(_docker(["run", "--rm", "--network=none", "--entrypoint=cat", unlabelled, "/etc/stand-in"], environment))
    label = f"{LABEL}={', '.join(about.splitlines())}"
    _check(_docker(["build", "--quiet", "--label", label, "--tag", image, *arguments], environment))
    _check(_docker(["image", "rm", unlabelled], environment))


def _docker(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True)


def _check(result: subprocess.CompletedProcess[str]) -> str:
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise NativeError(f"`{' '.join(result.args[:3])}` failed: " + "\n".join(lines[-12:]))
    return result.stdout.strip()


def _run(command: list[str]) -> None:
    # debootstrap and chroot would pass a TMPDIR on that the new root does not have
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    _check(subprocess.run(command, env=environment, capture_output=True, text=True))
