"""Nothing is installed that was not looked at: every Python package is pinned to a version and to its files' hashes."""

from __future__ import annotations

import re

import pytest

from ops import images
from ops.paths import PROJECT


def paths(*patterns: str) -> list[str]:
    found = sorted(str(file.relative_to(PROJECT)) for pattern in patterns for file in PROJECT.glob(pattern))
    assert found
    return found


LOCKS = paths("*/requirements.txt", "requirements/*.txt")
SOURCES = paths("*/requirements.in", "requirements/*.in")
INSTALLERS = paths("Makefile", "requirements/*.sh", "*/Dockerfile", ".ci/run", ".github/workflows/*.yml")


def normal(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(lock: str) -> list[str]:
    """The requirements of a lock file, each in one line."""
    text = (PROJECT / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_there_is_a_lock_for_everything_that_is_installed() -> None:
    sources = {name.removesuffix(".in") for name in SOURCES}
    assert {name.removesuffix(".txt") for name in LOCKS} == sources
    assert {"app/requirements", "loadtest/requirements", "requirements/dev"} <= sources


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_a_version_and_hashes(lock: str) -> None:
    lines = requirements(lock)
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[^ ]+ ", line), line
        assert re.search(r" --hash=sha256:[0-9a-f]{64}\b", line), line
        assert "://" not in line


@pytest.mark.parametrize("source", SOURCES)
def test_every_wanted_package_is_in_its_lock(source: str) -> None:
    pinned = {normal(re.split(r"[\[=]", line)[0]) for line in requirements(source.removesuffix(".in") + ".txt")}
    lines = [line.split("#")[0].strip() for line in (PROJECT / source).read_text().splitlines()]
    wanted = {normal(re.split(r"[\[=<>~! ;]", line)[0]) for line in lines if line and not line.startswith("-")}
    assert wanted
    assert wanted <= pinned


def test_every_installation_asks_for_hashes() -> None:
    texts = {name: (PROJECT / name).read_text().replace("\\\n", " ") for name in INSTALLERS}
    installing = [
        (name, line) for name in texts for line in texts[name].splitlines() if re.search(r"\bpip install\b", line)
    ]
    assert {name for name, _ in installing} == {"requirements/install.sh", "app/Dockerfile", "loadtest/Dockerfile"}
    assert [line for _, line in installing if "--require-hashes" not in line] == []


def test_images_have_versions_in_one_place() -> None:
    compose = (PROJECT / "docker-compose.yml").read_text()
    others = "".join((PROJECT / name).read_text() for name in INSTALLERS)
    for reference in images.upstream().values():
        assert re.search(r":v?\d+\.\d+", reference)
        assert compose.count(reference) == 1
        assert reference not in others
