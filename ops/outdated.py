"""`make outdated`: which upstream images have newer tags, from their registries (Docker Registry HTTP API v2)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import requests

from ops import images
from ops.errors import OpsError
from ops.releases import reason
from ops.shell import run

TIMEOUT = 20.0  # seconds for one response
PAGE = 1000  # tags per request; a registry may return fewer
PAGES = 200


@dataclass(frozen=True)
class Tag:
    """A tag that is a version, such as v3.13.4 or 3.13-slim: the text around the numbers is the variant."""

    prefix: str
    numbers: tuple[int, ...]
    suffix: str

    @classmethod
    def parse(cls, text: str) -> Tag | None:
        found = re.fullmatch(r"(v?)(\d+(?:\.\d+)*)((?:-[a-z][a-z0-9.-]*)?)", text)
        return cls(found[1], tuple(map(int, found[2].split("."))), found[3]) if found else None

    def comparable(self, other: Tag) -> bool:
        ours, its = (self.prefix, len(self.numbers), self.suffix), (other.prefix, len(other.numbers), other.suffix)
        return ours == its

    def __str__(self) -> str:
        return f"{self.prefix}{'.'.join(map(str, self.numbers))}{self.suffix}"


def report() -> None:
    """Print every image with the newest tag of its line and the newest of all.

    A line is a major version or, for an LTS release, major and minor: the next minor version is another line.

    Raises:
        OpsError: a registry can't be asked.
    """
    rows = [("IMAGE", "HERE", "SAME LINE", "NEWEST")]
    long_term = images.long_term()
    for name, reference in images.upstream().items():
        repository, _, text = reference.partition("@")[0].rpartition(":")
        here = Tag.parse(text)
        if here is None:
            raise OpsError(f"{reference} has no version as its tag, so there is nothing to compare.")
        same_line, newest = newer(here, tags(*address(repository)), 2 if name in long_term else 1)
        rows.append((repository, str(here), _if_newer(same_line, here), _if_newer(newest, here)))
    for image, *versions in rows:
        print(f"{image:<40}{versions[0]:<16}{versions[1]:<16}{versions[2]}")
    print(
        "docker-compose.yml, x-images, sets the versions. A new major version of PostgreSQL needs backup and restore."
    )


def newer(here: Tag, found: Iterable[str], same: int = 1) -> tuple[Tag, Tag]:
    """The newest tag of the same variant whose first `same` numbers are the same, and the newest of the variant."""
    versions = [tag for text in found if (tag := Tag.parse(text)) and tag.comparable(here)]
    versions = sorted([*versions, here], key=lambda tag: tag.numbers)
    return [tag for tag in versions if tag.numbers[:same] == here.numbers[:same]][-1], versions[-1]


def _if_newer(tag: Tag, here: Tag) -> str:
    return str(tag) if tag != here else "-"


def address(repository: str) -> tuple[str, str]:
    """A repository's registry (its address) and its name there, as Docker reads references."""
    host, _, name = repository.partition("/")
    if name and (set(host) & {".", ":"} or host == "localhost"):
        return f"https://{host}", name
    return _default_registry(), repository if name else f"library/{repository}"


def _default_registry() -> str:
    """The registry of images that name none: the engine's, unless IMAGE_REGISTRY names another (a mirror)."""
    registry = os.environ.get("IMAGE_REGISTRY")
    if registry and not re.match("https?://", registry):
        raise OpsError(f"IMAGE_REGISTRY is '{registry}'; it must be an address such as https://registry.example.")
    if registry:
        return registry.rstrip("/")
    try:
        index = run(["docker", "info", "--format", "{{.IndexServerAddress}}"])
    except (OpsError, OSError):
        index = ""
    if not index.startswith("https://"):
        raise OpsError("No Docker engine responds, so its registry is unknown; set IMAGE_REGISTRY=https://...")
    return f"https://{urlsplit(index).netloc}"


def tags(registry: str, name: str) -> list[str]:
    """All tags of a repository.

    Raises:
        OpsError: the registry can't be asked.
    """
    url = f"{registry}/v2/{quote(name)}/tags/list?n={PAGE}"
    found: list[str] = []
    try:
        with requests.Session() as session:
            answer = session.get(url, timeout=TIMEOUT)
            if token := _token(session, answer, registry):
                session.headers["Authorization"] = f"Bearer {token}"
                answer = session.get(url, timeout=TIMEOUT)
            for _ in range(PAGES):
                answer.raise_for_status()
                found += answer.json()["tags"] or []
                if "next" not in answer.links:
                    return found
                url = urljoin(url, answer.links["next"]["url"])
                if urlsplit(url).netloc != urlsplit(registry).netloc:
                    raise ValueError(f"its next page is at {url}")
                answer = session.get(url, timeout=TIMEOUT)
            raise ValueError(f"it has more than {PAGES} pages of tags")
    except requests.RequestException as error:
        why = reason(error)
    except (ValueError, KeyError, TypeError) as error:
        why = str(error)
    raise OpsError(f"{registry} does not list the tags of {name}: {why}")


def _token(session: requests.Session, answer: requests.Response, registry: str) -> str | None:
    """An anonymous token for public images, from the address in the registry's challenge; None where it has none."""
    facts = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers.get("WWW-Authenticate", "")))
    realm = facts.pop("realm", None)
    if answer.status_code != requests.codes.unauthorized or realm is None:
        return None
    if registry.startswith("https://") and not realm.startswith("https://"):
        raise ValueError("it requests a token from an address without TLS")
    answer = session.get(realm, params=facts, timeout=TIMEOUT)
    answer.raise_for_status()
    return str(answer.json().get("token") or answer.json()["access_token"])
