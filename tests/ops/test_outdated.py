"""`make outdated` against a registry with the usual tags API: a token first, then page by page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops import images, outdated
from ops.errors import OpsError
from ops.outdated import Tag
from ops.paths import PROJECT
from tests.running import free_port

PAGE = 3


class Registry(ThreadingHTTPServer):
    """Tags by repository; without a token of its own there are none."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.tags: dict[str, list[str]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []
        self.foreign_pages = False


class Answer(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.server.requests.append(self.path)
        if url.path == "/token":
            assert query["service"] == "the registry"
            self.answer(200, {"token": f"for {query['scope']}"})
            return
        name = url.path.removeprefix("/v2/").removesuffix("/tags/list")
        scope = f"repository:{name}:pull"
        if self.headers.get("Authorization") != f"Bearer for {scope}":
            challenge = f'Bearer realm="{self.server.url}/token",service="the registry",scope="{scope}"'
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED"}]}, {"WWW-Authenticate": challenge})
        elif name not in self.server.tags:
            self.answer(404, {"errors": [{"code": "NAME_UNKNOWN"}]})
        else:
            tags = sorted(self.server.tags[name])
            start = tags.index(query["last"]) + 1 if "last" in query else 0
            page = tags[start : start + PAGE]
            host = "http://elsewhere.invalid" if self.server.foreign_pages else ""
            following = f'<{host}/v2/{name}/tags/list?last={page[-1]}&n={PAGE}>; rel="next"' if page else ""
            more = start + PAGE < len(tags)
            self.answer(200, {"name": name, "tags": page}, {"Link": following} if more else {})

    def answer(self, code: int, document: object, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def report(address: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "IMAGE_REGISTRY": address}
    command = [sys.executable, "-m", "ops", "outdated"]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=300)


def test_every_image_is_compared_with_its_registry(registry: Registry) -> None:
    noise = ["latest", "main", "sha-0a1b2c3", "1", "99-alpine", "v99.0.0-rc.0", "99.0.0-rc1"]
    for reference in images.upstream().values():
        repository, _, tag = reference.rpartition(":")
        name = repository if "/" in repository else f"library/{repository}"
        registry.tags[name] = [tag, *noise]
    registry.tags["library/postgres"] += ["18.7", "18.10", "18.9", "17.99", "19.0", "18.11-alpine"]
    registry.tags["prom/prometheus"] += ["v3.14.0", "v3.13.10", "v3.13.9", "v3.2.10", "3.99.0"]
    registry.tags["library/python"] += ["3.14-slim", "3.15", "3.9-slim", "3.15-slim-trixie"]
    result = report(registry.url)
    assert result.returncode == 0, result.stderr
    table, _, _ = result.stdout.partition("docker-compose.yml, x-images")
    rows = {cells[0]: cells[1:] for cells in (line.split() for line in table.splitlines()[1:])}
    assert set(rows) == {reference.rpartition(":")[0] for reference in images.upstream().values()}
    assert rows["postgres"] == [images.upstream()["postgres"].partition(":")[2], "18.10", "19.0"]
    assert rows["prom/prometheus"][1:] == ["v3.13.10", "v3.14.0"], "an LTS line is a minor version"
    assert rows["python"][1:] == ["3.14-slim", "3.14-slim"]
    assert rows["grafana/grafana"][1:] == ["-", "-"]
    pages = [path for path in registry.requests if path.startswith("/v2/library/postgres/")]
    assert len(pages) == 1 + 5, "refused once, then 14 tags in pages of three"
    assert sum(path.startswith("/token") for path in registry.requests) == len(rows)


def test_an_unreachable_registry_is_reported_in_one_line(registry: Registry) -> None:
    for address, reason in (
        (f"http://127.0.0.1:{free_port()}", "does not list the tags of library/python: the connection failed"),
        (registry.url, "does not list the tags of library/python: the answer is 404"),
        ("file:///etc/passwd", "IMAGE_REGISTRY is 'file:///etc/passwd'; it must be an address"),
    ):
        result = report(address)
        assert result.returncode == 1
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        assert reason in lines[0]


def test_pages_elsewhere_are_not_followed(registry: Registry) -> None:
    registry.tags["some/image"] = [f"1.{number}" for number in range(10)]
    assert len(outdated.tags(registry.url, "some/image")) == 10
    registry.foreign_pages = True
    with pytest.raises(OpsError, match="its next page is at"):
        outdated.tags(registry.url, "some/image")


@pytest.mark.parametrize(
    ("repository", "registry", "name"),
    [
        ("postgres", "https://default.example", "library/postgres"),
        ("prom/prometheus", "https://default.example", "prom/prometheus"),
        ("registry.example/team/image", "https://registry.example", "team/image"),
        ("localhost/image", "https://localhost", "image"),
        ("registry:5000/image", "https://registry:5000", "image"),
    ],
)
def test_references_are_read_as_docker_does(
    monkeypatch: pytest.MonkeyPatch, repository: str, registry: str, name: str
) -> None:
    monkeypatch.setenv("IMAGE_REGISTRY", "https://default.example/")
    assert outdated.address(repository) == (registry, name)


def test_all_images_have_comparable_tags() -> None:
    for reference in images.upstream().values():
        tag = reference.rpartition(":")[2]
        assert str(Tag.parse(tag)) == tag
