"""What Compose makes of docker-compose.yml and settings: no container runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from ops import settings
from ops.paths import PROJECT
from ops.processes import ProcessStack
from tests.ops.test_links import LINKS

pytestmark = pytest.mark.stack


def services(**environment: str) -> dict[str, Any]:
    known = (*settings.DEFAULTS, *settings.LINKS)
    outer = {name: value for name, value in os.environ.items() if name not in known}
    result = subprocess.run(
        ["docker", "compose", "config", "--format=json"],
        cwd=PROJECT, env={**outer, "COMPOSE_DISABLE_ENV_FILE": "1", **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["services"]
    return found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"GRAFANA_PORT": "13000", "PROMETHEUS_PORT": "19090"},
        {"PROMETHEUS_URL": "https://prometheus.example"},
        LINKS,
    ],
)
def test_links_are_those_of_native_mode(given: dict[str, str]) -> None:
    made = services(**given)
    native = {server.name: server for server in ProcessStack(settings.load(given, PROJECT / "no .env")).servers()}
    assert made["prometheus"]["environment"] == native["prometheus"].environment
    for server in ("prometheus", "alertmanager"):
        [link] = [word for word in native[server].command if word.startswith("--web.external-url=")]
        assert link.removesuffix("/classic") in made[server]["command"]
    assert made["grafana"]["environment"]["GF_SERVER_ROOT_URL"] == given.get("GRAFANA_URL") or (
        f"http://localhost:{given.get('GRAFANA_PORT', 3000)}"
    )
    # As Grafana reaches them, whatever the settings of these names are.
    assert made["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
