"""Servers without Docker have the flags and variables of their containers, with places of their own."""

from __future__ import annotations

import re

import pytest
import yaml

from ops import settings
from ops.dotenv import fill
from ops.paths import PROJECT
from ops.processes import ProcessStack
from ops.servers import Server

COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
CHANGED = {"PROMETHEUS_PORT": "19090", "ALERTMANAGER_PORT": "19093", "GRAFANA_PORT": "13000"}
RETENTION = {"PROMETHEUS_RETENTION_TIME": "7d", "PROMETHEUS_RETENTION_SIZE": "1GB"}


@pytest.fixture(scope="module")
def native() -> dict[str, Server]:
    stack = ProcessStack(settings.load({**CHANGED, **RETENTION}, PROJECT / "no .env"))
    return {server.name: server for server in stack.servers()}


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_flags_are_those_of_the_container(native: dict[str, Server], name: str) -> None:
    """But for places; and a flag with a place in the container has been given another one."""
    flags = dict(word.split("=", 1) for word in native[name].command[1:])
    inside = [fill(word, {**CHANGED, **RETENTION}).split("=", 1) for word in COMPOSE[name]["command"]]
    assert flags.keys() >= dict(inside).keys()
    for flag, value in inside:
        place = re.match(r"/(etc|srv|prometheus|alertmanager)\b", value)
        assert (flags[flag] != value) if place else flags[flag].removesuffix("/classic") == value, flag


def test_settings_reach_the_servers(native: dict[str, Server]) -> None:
    prometheus = native["prometheus"]
    assert {"--storage.tsdb.retention.time=7d", "--storage.tsdb.retention.size=1GB"} <= {*prometheus.command}
    assert "--web.cors.origin=http://localhost:19090" in prometheus.command
    assert prometheus.environment == {
        "GRAFANA_URL": "http://localhost:13000",
        "RUNBOOKS_URL": "http://localhost:19090/user/runbooks",
    }


def test_the_exporters_options_are_one_file() -> None:
    assert COMPOSE["postgres-exporter"]["command"] == ["@/etc/postgres_exporter.args"]
    assert COMPOSE["postgres-exporter"]["volumes"] == ["./postgres/exporter.args:/etc/postgres_exporter.args:ro"]


def test_valkey_runs_only_where_it_counts_active_users(native: dict[str, Server]) -> None:
    """With the container's flags, and its password by standard input."""
    assert "valkey" not in native
    assert "ACTIVE_USERS_STORE" not in native["app"].environment
    settings_ = settings.load(
        {"ACTIVE_USERS_STORE": "redis://valkey:6379", "VALKEY_PORT": "16379"}, PROJECT / "no .env"
    )
    stack = {server.name: server for server in ProcessStack(settings_).servers()}
    assert stack["app"].environment["ACTIVE_USERS_STORE"] == "redis://127.0.0.1:16379"
    assert " ".join(COMPOSE["valkey"]["command"]) in " ".join(stack["valkey"].command)
    assert stack["valkey"].command[-6:] == ("--bind", "127.0.0.1", "--port", "16379", "--daemonize", "no")
    assert "requirepass $(cat " in stack["valkey"].command[2]
    theirs = settings.load({"ACTIVE_USERS_STORE": "rediss://cache.example:6380"}, PROJECT / "no .env")
    stack = {server.name: server for server in ProcessStack(theirs).servers()}
    assert "valkey" not in stack
    assert stack["app"].environment["ACTIVE_USERS_STORE"] == "rediss://cache.example:6380"
