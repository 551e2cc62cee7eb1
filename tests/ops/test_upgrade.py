"""A stack that the last release has made goes on with this one: `git pull && make up`.

`last_release/` has what that release wrote: the database (its own `make up`, then `pg_dumpall` and its settings) and
Alertmanager's silences. Nothing else of it is needed: metrics are given to Prometheus as blocks of its own format, and
the passwords are files whose names have not changed. To be made anew after a release.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from ops import postgres, secrets
from ops.paths import PROJECT
from ops.programs import find
from tests.ops.native import Stack, native_stack
from tests.running import wait_until
from tests.servers import PrometheusApi

LAST_RELEASE = Path(__file__).with_name("last_release")
KEY = "sl_of-a-user-of-the-last-release"
SECRETS = {
    *("app_db_password", "exporter_db_password", "postgres_password", "faults_token"),
    *("grafana_admin_password", "grafana_secret_key", "prometheus/metrics_token"),
}
VOLUMES = {
    "postgres": ("postgres:18", "999:999", "postgres-data:/var/lib/postgresql"),
    "prometheus": ("prom/prometheus:v3", "65534:65534", "prometheus-data:/prometheus"),
    "alertmanager": ("prom/alertmanager:v0", "65534:65534", "alertmanager-data:/alertmanager"),
    "grafana": ("grafana/grafana:13", "472:0", "grafana-data:/var/lib/grafana"),
}
"""Docker: what the last release's data need to be found and read: major version, user, volume and place."""
SERIES = '{endpoint="/items",instance="127.0.0.1:8000",job="app",method="POST",service="sightline",status_code="201"}'


@pytest.fixture
def old_stack() -> Iterator[tuple[Stack, float]]:
    """A stack with the last release's data, not running, and the time of the last sample that it stored."""
    with native_stack(place="a path with blanks") as stack:
        passwords = Path(stack.environment["SECRETS_DIR"])
        secrets.generate(passwords)
        for file in [path for path in passwords.rglob("*") if path.is_file()]:
            if str(file.relative_to(passwords)) not in SECRETS:
                file.unlink()
        data = stack.state / "data"
        for folder in (stack.state, data):
            folder.mkdir(mode=0o711)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgres, "INIT", LAST_RELEASE / "postgres")
            postgres.initialise(data / "postgres", passwords)
        if os.geteuid() == 0:  # whose PostgreSQL ran as nobody
            subprocess.run(["chown", "--recursive", "nobody:", data / "postgres"], check=True)
        shutil.copytree(LAST_RELEASE / "alertmanager", data / "alertmanager")
        last = time.time() - 600
        samples = "".join(f"http_requests_total{SERIES} {n} {last - 60 + 15 * n:.3f}\n" for n in range(1, 5))
        (stack.state / "samples").write_text(f"# TYPE http_requests counter\n{samples}# EOF\n")
        command = [str(find("promtool")["promtool"]), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run(
            [*command, str(stack.state / "samples"), str(data / "prometheus")], check=True, capture_output=True
        )
        yield stack, last


def test_data_of_the_last_release_are_kept(old_stack: tuple[Stack, float]) -> None:
    """In a path with blanks, by a shell with a strict umask."""
    stack, last = old_stack
    passwords = Path(stack.environment["SECRETS_DIR"])
    before = {name: (passwords / name).read_text() for name in SECRETS}
    usual = os.umask(0o077)
    try:
        result = stack.run("up")
    finally:
        os.umask(usual)
    assert result.returncode == 0, result.stderr
    assert "Everything is healthy." in result.stdout
    assert {name: (passwords / name).read_text() for name in SECRETS} == before

    service = f"http://127.0.0.1:{stack.port('app')}"
    bearer = {"Authorization": f"Bearer {KEY}"}
    items = httpx2.get(f"{service}/items", headers=bearer, timeout=60).json()["items"]
    assert [item["title"] for item in items] == ["Milk"]
    made = httpx2.post(f"{service}/items", headers=bearer, json={"title": "Bread"}, timeout=60).json()
    assert made["id"] > items[0]["id"]
    assert httpx2.post(f"{service}/chat", headers=bearer, json={"message": "Again"}, timeout=60).status_code == 200

    alertmanager = f"http://127.0.0.1:{stack.port('alertmanager')}/api/v2"
    [silence] = httpx2.get(f"{alertmanager}/silences", timeout=60).json()
    assert (silence["comment"], silence["status"]["state"]) == ("kept over an upgrade", "active")

    prometheus = PrometheusApi()
    prometheus.url = f"http://127.0.0.1:{stack.port('prometheus')}"
    assert prometheus.value(f"http_requests_total{SERIES} @ {last:.3f}") == 4.0

    saved = stack.run("backup")
    assert saved.returncode == 0, saved.stderr
    assert "make restore FROM='" in saved.stdout, "to be pasted, blanks and all"
    before_pull = {server: stack.pid(server) for server in ("app", "prometheus")}
    again = stack.run("up")
    assert again.returncode == 0, "and once more, with nothing to migrate"
    wait_until(stack.healthy)
    assert {server: stack.pid(server) for server in before_pull} == before_pull
    with open(stack.project / "app" / "main.py", "a") as code:
        code.write("# as after git pull\n")
    assert "Settings or files have changed" in stack.run("up").stdout, "what runs is what is there"
    assert stack.pid("app") != before_pull["app"]
    wait_until(stack.healthy)


def test_docker_finds_the_last_releases_volumes() -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    assert compose["name"] == "sightline"
    for server, (image, user, volume) in VOLUMES.items():
        service = compose["services"][server]
        assert service["image"].startswith(image)
        assert service["user"] == user
        assert volume in service["volumes"]
    assert all(not volume for volume in compose["volumes"].values()), "no other driver, no other name"
    assert set(secrets.NAMES) >= SECRETS
