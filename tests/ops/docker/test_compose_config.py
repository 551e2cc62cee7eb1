"""What Compose makes of docker-compose.yml and settings: no container runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from ops import preflight, settings
from ops.docker import ComposeStack
from ops.dotenv import fill
from ops.errors import OpsError
from ops.paths import PROJECT
from tests.ops.links import LINKS

pytestmark = pytest.mark.stack


def services(*overrides: Path, **environment: str) -> dict[str, Any]:
    """What Compose makes of the files in COMPOSE_FILE, by default of docker-compose.yml and `overrides`."""
    known = (*settings.DEFAULTS, *settings.LINKS)
    outer = {name: value for name, value in os.environ.items() if name not in known}
    files = [f"--file={file}" for file in ("docker-compose.yml", *overrides) if "COMPOSE_FILE" not in environment]
    result = subprocess.run(
        ["docker", "compose", *files, "config", "--format=json"],
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
def test_native_mode_fills_in_what_compose_does(given: dict[str, str]) -> None:
    """Flags, environment and links are then the same in both modes."""
    made = services(**given)
    written = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    # In its output Compose writes a dollar sign twice, as it reads it.
    for server in ("prometheus", "alertmanager"):
        assert made[server]["command"] == [fill(word, given) for word in written[server]["command"]]
    for server in ("prometheus", "grafana"):
        environment = {name: value.replace("$$", "$") for name, value in made[server]["environment"].items()}
        assert environment == {name: fill(value, given) for name, value in written[server]["environment"].items()}
    # As Grafana reaches them, whatever the settings of these names are.
    assert made["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ({"LONGTERM_RETENTION": "5y"}, {"monitoring", "published"}),
        ({"REMOTE_WRITE_URL": "https://metrics.example/api/v1/write"}, {"monitoring", "published", "outside"}),
    ],
)
def test_a_store_for_years_changes_prometheus_and_its_data_source_only(
    given: dict[str, str], networks: set[str]
) -> None:
    stack = ComposeStack(settings.load({**given, "COMPOSE_FILE": "docker-compose.yml"}, Path("no .env")))
    names = ("COMPOSE_FILE", "COMPOSE_PROFILES", "GRAFANA_PROVISIONING", "REMOTE_WRITE_CONFIG", "REMOTE_WRITE_NETWORK")
    before = services()
    after = services(**given, **{name: stack.environment[name] for name in names if name in stack.environment})
    changed = {name for name in after if after[name] != before.get(name)}
    own = "LONGTERM_RETENTION" in given
    assert changed == {"prometheus", *(("grafana", "victoriametrics") if own else ())}
    assert set(after["prometheus"]["networks"]) == networks
    mounts = {volume["target"]: volume["source"] for volume in after["prometheus"]["volumes"]}
    assert mounts["/etc/prometheus/prometheus.yml"] == stack.environment["REMOTE_WRITE_CONFIG"]
    if own:
        assert after["victoriametrics"].get("ports", []) == []
        assert set(after["victoriametrics"]["networks"]) == {"monitoring"}


def documented(document: str) -> list[str]:
    """The overrides in a document."""
    text = (PROJECT / "docs" / document).read_text()
    blocks = re.findall(r"^( *)```yaml\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [dedent(block) for _, block in blocks if dedent(block).startswith("services:\n")]


@pytest.mark.parametrize("document", ["operations.md", "security.md"])
def test_overrides_of_the_documents_change_what_they_say_and_nothing_else(document: str, tmp_path: Path) -> None:
    before = services()
    assert documented(document)
    for number, override in enumerate(documented(document)):
        file = tmp_path / f"{number}.yml"
        file.write_text(override)
        after = services(file)
        [name] = [name for name in after if after[name] != before[name]]
        added = {key for key in after[name] if after[name][key] != before[name].get(key)}
        assert added <= {"networks", "extra_hosts", "scale"}
        if "networks:" in override:
            [joined] = re.findall(r"networks: \[(\w+)\]", override)
            assert after[name]["networks"].keys() == {*before[name]["networks"], joined}
        if "extra_hosts" in override:
            assert after[name]["extra_hosts"] == ["host.docker.internal=host-gateway"]
        if "!reset" in override:
            assert "ports" not in after[name]


def overridden(tmp_path: Path, text: str) -> ComposeStack:
    """The stack as the checkout has it, with an override of the user's."""
    override = tmp_path / "override.yml"
    override.write_text(dedent(text))
    made = {"COMPOSE_FILE": f"docker-compose.yml:{override}", "COMPOSE_DISABLE_ENV_FILE": "1", "APP_PORT": "18000"}
    return ComposeStack(settings.load({**made, "SIGHTLINE_STATE": str(tmp_path / "state")}, Path("no .env")))


def test_servers_that_an_override_turns_off_are_named(tmp_path: Path) -> None:
    override = """\
        services:
          node-exporter: {scale: 0}
          postgres-exporter: {deploy: {replicas: 0}}
          grafana: !reset null
          alertmanager: {profiles: [never]}
        """
    with pytest.raises(OpsError) as refused:
        preflight.require_targets(overridden(tmp_path, override))
    names = re.findall(
        r"^An override turns (\S+) off, .* write \[\] into prometheus/targets/\w+\.yml\.$",
        str(refused.value),
        re.MULTILINE,
    )
    assert names == ["postgres-exporter", "node-exporter", "alertmanager", "grafana"]
    preflight.require_targets(overridden(tmp_path, "services: {}"))


def test_ports_of_overrides_are_those_that_compose_makes_of_them(tmp_path: Path) -> None:
    stack = overridden(
        tmp_path,
        """\
        services:
          app: {ports: ["8001-8003:8000", "5678:5678", "9000", "10.0.0.1:18080:8000"]}
          grafana: {ports: !override ["0.0.0.0:3100:3000", "53:53/udp"]}
          prometheus: {ports: !reset []}
          locust: {ports: !reset []}
          cadvisor: {image: cadvisor, ports: ["8100-8101:80-81"]}
          off: {image: off, ports: ["8200:80"], profiles: [off]}
        """,
    )
    assert preflight.published(stack) == {
        "APP_PORT": 18000,
        "port 5678 of app in your override": 5678,
        "port 3100 of grafana in your override": 3100,
        "ALERTMANAGER_PORT": 9093,
        "port 8100 of cadvisor in your override": 8100,
        "port 8101 of cadvisor in your override": 8101,
    }


def test_limits_of_overrides_have_the_names_of_the_document(tmp_path: Path) -> None:
    """docs/troubleshooting.md: Compose takes those of `deploy` in no file where it has the others in another one."""
    with pytest.raises(OpsError, match="can't set distinct values on 'mem_limit' and 'deploy"):
        _ = overridden(tmp_path, "services: {app: {deploy: {resources: {limits: {memory: 2g}}}}}").config
    changed = overridden(tmp_path, "services: {app: {mem_limit: 2g, pids_limit: 300}}").config["services"]["app"]
    assert (changed["mem_limit"], changed["pids_limit"]) == (str(2 << 30), 300)
