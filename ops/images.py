"""The upstream images that docker-compose.yml names: which are missing, and pulling them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ops.console import step
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.shell import run, succeeds

CERTIFICATES = Path("/usr/local/share/ca-certificates")  # where Debian keeps certificates that this machine adds


def upstream() -> dict[str, str]:
    """Name and reference of every upstream image, as the block `x-images` of docker-compose.yml lists them."""
    return {name: reference for name, reference, _ in _listed()}


def long_term() -> set[str]:
    """The names of those that are releases with long-term support, by their comment there."""
    return {name for name, _, comment in _listed() if "LTS" in comment}


def _listed() -> list[tuple[str, str, str]]:
    text = (PROJECT / "docker-compose.yml").read_text()
    block = re.search(r"^x-images:.*\n((?:[ #].*\n)+)", text, re.MULTILINE)
    images = re.findall(r"^  ([a-z-]+): &\S+ (\S+)(.*)", block[1] if block else "", re.MULTILINE)
    if not images:
        raise OpsError("docker-compose.yml has no block x-images.")
    return images


def missing(environment: Mapping[str, str]) -> dict[str, str]:
    """The upstream images that the engine does not have."""
    return {
        name: image
        for name, image in upstream().items()
        if not succeeds(["docker", "image", "inspect", image], environment)
    }


def pull(images: Iterable[str], environment: Mapping[str, str]) -> str | None:
    """Pull images; why it failed, None if it did not."""
    for image in images:
        try:
            with step(f"Pulling {image}"):
                run(["docker", "pull", "--quiet", image], environment)
        except OpsError as error:
            return str(error)
    return None


def certificates() -> Path | None:
    """The folder of the certificates that this machine adds to the usual ones, if it has any."""
    return CERTIFICATES if any(CERTIFICATES.glob("*.crt")) else None
