"""Both modes start their servers with the same options: what differs is where a server lives, and is named here."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from ops import settings
from ops.paths import PROJECT
from ops.processes import ProcessStack

COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
# Paths, addresses and ports: each mode has its own.
PLACES = {
    "config.file",
    "storage.path",
    "storage.tsdb.path",
    "web.cors.origin",
    "web.external-url",
    "web.listen-address",
    "web.user-assets",
}
NATIVE_ONLY = {
    "alertmanager": {},
    "prometheus": {
        "enable-feature": "expand-external-labels",  # Prometheus 2, Debian's, does not do it otherwise
    },
}


def flags(words: Sequence[str]) -> dict[str, str]:
    """Option -> value, those of `PLACES` left out; Compose's variables have their defaults."""
    options = [word.removeprefix("--").partition("=") for word in words if word.startswith("--")]
    filled = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, _, value in options}
    return {name: value for name, value in filled.items() if name not in PLACES}


def test_flags_are_the_same_in_both_modes() -> None:
    stack = ProcessStack(settings.load({}, PROJECT / "no .env"))
    native = {server.name: server for server in stack.servers()}
    for name, extra in NATIVE_ONLY.items():
        assert flags(native[name].command) == {**flags(COMPOSE[name]["command"]), **extra}, name


def test_the_exporters_options_are_one_file() -> None:
    assert COMPOSE["postgres-exporter"]["command"] == ["@/etc/postgres_exporter.args"]
    assert COMPOSE["postgres-exporter"]["volumes"] == ["./postgres/exporter.args:/etc/postgres_exporter.args:ro"]
