"""`make outdated`: which upstream images have newer tags, asked of their registries (Docker Registry HTTP API v2)."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ops import images
from ops.errors import OpsError
from ops.shell import run

TIMEOUT = 20.0  # seconds for one answer
PAGE = 1000  # tags asked for at once; a registry may give fewer
PAGES = 200
LARGEST = 16 << 20  # bytes of an answer


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

    Raises OpsError where a registry can't be asked.
    """
    rows = [("IMAGE", "HERE", "SAME LINE", "NEWEST")]
    long_term = images.long_term()
    for name, reference in images.upstream().items():
        repository, _, text = reference.partition("@")[0].rpartition(":")
        here = Tag.parse(text)
        if here is None:
            raise OpsError(f"{reference} has no version as its tag: there is nothing to compare.")
        same_line, newest = newer(here, tags(*address(repository)), 2 if name in long_term else 1)
        rows.append((repository, str(here), _if_newer(same_line, here), _if_newer(newest, here)))
    for image, *versions in rows:
        print(f"{image:<40}{versions[0]:<16}{versions[1]:<16}{versions[2]}")
    print("Versions stand in docker-compose.yml, x-images. A new major version of PostgreSQL takes backup and restore.")


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
    if registry:
        return registry.rstrip("/")
    try:
        index = run(["docker", "info", "--format", "{{.IndexServerAddress}}"])
    except (OpsError, OSError):
        index = ""
    if not index.startswith("https://"):
        raise OpsError("No Docker engine answers that knows its registry; IMAGE_REGISTRY=https://... names one.")
    return f"https://{urllib.parse.urlsplit(index).netloc}"


def tags(registry: str, name: str) -> list[str]:
    """All tags of a repository. Raises OpsError where the registry can't be asked."""
    url = f"{registry}/v2/{urllib.parse.quote(name)}/tags/list?n={PAGE}"
    token = None
    found: list[str] = []
    try:
        for _ in range(PAGES):
            try:
                answer, following = _get(url, token)
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                if error.code != 401 or token is not None or not challenge.lower().startswith("bearer "):
                    raise
                token = _token(challenge, registry)
                continue
            found += answer["tags"] or []
            if following is None:
                return found
            url = urllib.parse.urljoin(url, following)
            if urllib.parse.urlsplit(url).netloc != urllib.parse.urlsplit(registry).netloc:
                raise ValueError(f"its next page is at {url}")
        raise ValueError(f"it has more than {PAGES} pages of tags")
    except urllib.error.HTTPError as error:
        reason = f"it answers {error.code}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(getattr(error, "reason", error))
    raise OpsError(f"{registry} can't be asked for the tags of {name}: {reason}")


def _get(url: str, token: str | None) -> tuple[Any, str | None]:
    """A JSON document and where its next page is."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no web address")
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  checked above
    if token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        document = json.loads(answer.read(LARGEST))
        following = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
    return document, following[1] if following else None


def _token(challenge: str, registry: str) -> str:
    """An anonymous token for public images, from the address in the registry's challenge."""
    facts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = facts.pop("realm")
    if registry.startswith("https://") and not realm.startswith("https://"):
        raise ValueError("it wants a token from an address without TLS")
    answer, _ = _get(f"{realm}?{urllib.parse.urlencode(facts)}", None)
    return str(answer.get("token") or answer["access_token"])
