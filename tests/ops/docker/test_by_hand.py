"""What an operator does by hand, with Docker: psql, and a look at the configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ops.paths import PROJECT
from tests.ops.docker.conftest import Stack

pytestmark = pytest.mark.stack


def test_psql_is_the_superusers_and_runs_scripts(stack: Stack) -> None:
    monitors = "SELECT current_user, pg_has_role('sightline_exporter', 'pg_monitor', 'MEMBER') AS monitors;\n"
    revoked = stack.try_to_make("psql", given="REVOKE pg_monitor FROM sightline_exporter;\n")
    assert revoked.returncode == 0, revoked.stderr
    assert "postgres     | f" in stack.try_to_make("psql", given=monitors).stdout
    # As the runbooks have it: `make psql < postgres/init/10-roles.sql`
    result = stack.try_to_make("psql", given=(PROJECT / "postgres" / "init" / "10-roles.sql").read_text())
    assert result.returncode == 0, result.stderr
    assert "postgres     | t" in stack.try_to_make("psql", given=monitors).stdout
    refused = stack.try_to_make("psql", given="SELECT nonsense;\nSELECT 'after it';\n")
    assert refused.returncode != 0
    assert 'column "nonsense" does not exist' in refused.stderr
    assert "after it" not in refused.stdout


def test_psql_without_a_database_says_what_to_do(stack: Stack) -> None:
    stack.compose("stop", "postgres")
    try:
        result = stack.try_to_make("psql")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "PostgreSQL does not run; `make up` starts it.\n"
    finally:
        stack.compose("start", "postgres")
        stack.wait_until_healthy()


def test_the_configuration_is_checked_by_the_servers_own_tools(stack: Stack, tmp_path: Path) -> None:
    result = stack.try_to_make("check-config")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "rules/http.yml" in result.stdout
    assert "inhibit rules" in result.stdout
    copy = tmp_path / "sightline"
    for folder in ("ops", "prometheus", "alertmanager", "postgres"):
        shutil.copytree(PROJECT / folder, copy / folder)
    shutil.copy(PROJECT / "docker-compose.yml", copy)
    for file, text, says in (
        ("alertmanager/alertmanager.yml", "route: {}\n", "default receiver"),
        ("prometheus/rules/http.yml", "groups: [{name: http, rules: [{alert: A, expr: up ==}]}]\n", "parse error"),
        ("prometheus/prometheus.yml", "global: [\n", "FAILED"),
    ):
        (copy / file).write_text(text)
        refused = stack.try_to_make("check-config", project=copy)
        assert refused.returncode != 0
        assert says in refused.stdout + refused.stderr
