"""The fixtures that every other test builds on: real servers, reachable and healthy."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable

import psutil
import psycopg
import pytest

from ops.paths import PROJECT
from tests.running import Running, wait_until
from tests.servers import Alertmanager, Postgres, Prometheus


def test_postgres_has_the_roles_of_the_stack(postgres: Postgres) -> None:
    with psycopg.connect(postgres.create_database()) as connection:
        row = connection.execute("SELECT current_user, usesuper FROM pg_user WHERE usename = current_user").fetchone()
    assert row == ("sightline", False)
    with psycopg.connect(postgres.superuser_dsn) as connection:
        assert connection.execute("SHOW shared_preload_libraries").fetchone() == ("pg_stat_statements",)
    with psycopg.connect(postgres.exporter_dsn) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone() == (True,)
    assert stat.S_IMODE(postgres.data.stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.secrets.stat().st_mode) == 0o700


def test_postgres_rejects_logins_without_the_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.superuser_dsn.replace(":" + postgres.superuser_dsn.split(":")[2].split("@")[0], ":x"))


def test_exporters_and_prometheus(
    start_prometheus: Callable[..., Prometheus],
    start_alertmanager: Callable[..., Alertmanager],
    node_exporter: Running,
    postgres_exporter: Running,
) -> None:
    alertmanager = start_alertmanager("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    prometheus = start_prometheus(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        f"  - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{node_exporter.port}']}}]}}\n"
        f"  - {{job_name: postgres, static_configs: [{{targets: ['127.0.0.1:{postgres_exporter.port}']}}]}}\n"
        f"  - {{job_name: alertmanager, static_configs: [{{targets: ['127.0.0.1:{alertmanager.port}']}}]}}\n"
    )
    wait_until(lambda: set(prometheus.targets().values()) == {"up"})
    wait_until(lambda: prometheus.value("pg_up") == 1)
    assert prometheus.value("count(node_cpu_seconds_total{mode='idle'})") >= 1
    assert alertmanager.alerts() == []


ABANDONED = """
import time
from tests.servers import postgres
with postgres() as server:
    print(server.running.process.pid, server.data.parent, flush=True)
    time.sleep(600)
"""


def test_postgres_ends_when_the_tests_are_killed() -> None:
    """It has a user of its own where root runs the tests."""
    with subprocess.Popen([sys.executable, "-c", ABANDONED], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        server = psutil.Process(int(pid))
        run.kill()
    server.wait(60)
    shutil.rmtree(folder)
