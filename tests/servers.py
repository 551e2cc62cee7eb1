"""Real servers for tests, on free ports of 127.0.0.1 in temporary folders.

As context managers here, for fixtures of any scope, and as fixtures in conftest.py. A server that can't be had fails
the test with a sentence that says why; nothing is skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ops import configs, secrets, servers
from ops import postgres as native_postgres
from prometheus.src.settings import SETTINGS, examples
from tests.running import GARBAGE_COLLECTION, Running, folder, free_port, start


class PrometheusApi:
    """A Prometheus that can be asked, however it was started."""

    url: str

    def api(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of the HTTP API, e.g. api("targets")."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """An instant query's vector: sorted (label, value) pairs -> value."""
        result = self.api("query", query=expression)["result"]
        return {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in result}

    def drawn(self, expression: str, seconds: float) -> dict[tuple[tuple[str, str], ...], float]:
        """What a graph of the last `seconds` shows: sorted (label, value) pairs -> the last value of each line."""
        now = time.time()
        times = {"start": str(now - seconds), "end": str(now), "step": "1"}
        result = self.api("query_range", query=expression, **times)["result"]
        return {tuple(sorted(series["metric"].items())): float(series["values"][-1][1]) for series in result}

    def value(self, expression: str) -> float:
        """The value of an expression that yields exactly one series (AssertionError otherwise)."""
        values = list(self.query(expression).values())
        assert len(values) == 1, f"{expression} has {len(values)} series"
        return values[0]

    def targets(self) -> dict[str, str]:
        """The health (up, down, unknown) of every target by job."""
        return {target["labels"]["job"]: target["health"] for target in self.api("targets")["activeTargets"]}


class Prometheus(Running, PrometheusApi):
    """A Prometheus on a free port."""


class AlertmanagerApi:
    """An Alertmanager that can be asked, however it was started."""

    url: str

    def alerts(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=30) as answer:
            alerts: list[dict[str, Any]] = json.load(answer)
            return alerts

    def members(self) -> int:
        """How many Alertmanagers, itself included, it gossips with."""
        with urllib.request.urlopen(f"{self.url}/api/v2/status", timeout=30) as answer:
            return len(json.load(answer)["cluster"].get("peers", ()))


class Alertmanager(Running, AlertmanagerApi):
    """An Alertmanager on a free port."""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL with the stack's roles, as a fresh `make up` makes them."""

    host: str
    port: int
    data: Path
    secrets: Path
    running: Running
    user: str = "sightline"

    @property
    def password(self) -> str:
        return (self.secrets / "app_db_password").read_text()

    @property
    def superuser_dsn(self) -> str:
        password = (self.secrets / "postgres_password").read_text()
        return f"postgresql://postgres:{password}@{self.host}:{self.port}/postgres"

    @property
    def exporter_dsn(self) -> str:
        password = (self.secrets / "exporter_db_password").read_text()
        return f"postgresql://sightline_exporter:{password}@{self.host}:{self.port}/sightline"

    def dsn(self, database: str = "sightline") -> str:
        """The DSN of the service's own role, which is no superuser."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def create_database(self) -> str:
        """The DSN of a new empty database that belongs to the service's role."""
        import psycopg

        with psycopg.connect(self.superuser_dsn, autocommit=True) as connection:
            row = connection.execute("SELECT 'test_' || replace(gen_random_uuid()::text, '-', '')").fetchone()
            assert row is not None
            connection.execute(f'CREATE DATABASE "{row[0]}" OWNER {self.user}')
        return self.dsn(row[0])

    def environment(self, dsn: str | None = None) -> dict[str, str]:
        """The service's DATABASE_... settings for a database of this server (its own by default)."""
        return {
            "DATABASE_HOST": self.host,
            "DATABASE_PORT": str(self.port),
            "DATABASE_NAME": dsn.rpartition("/")[2] if dsn else "sightline",
            "DATABASE_USER": self.user,
            "DATABASE_PASSWORD_FILE": str(self.secrets / "app_db_password"),
        }


SHARED = "SIGHTLINE_TESTS_SHARED"
"""Environment variable: the folder for what is made once in a run of the tests, whichever of its processes needs it."""
MAJOR = int(os.environ.get("POSTGRES_MAJOR", "0")) or None  # of PostgreSQL; None: the pinned version
NOT_DURABLE = ("-cfsync=off", "-csynchronous_commit=off", "-cfull_page_writes=off", "-cmax_connections=200")


def _initialise(path: Path) -> None:
    """Secrets and a data folder as a fresh `make up` has them; copied from the first of the run, where there is one."""
    if SHARED not in os.environ:
        secrets.generate(path / "secrets")
        native_postgres.initialise(path / "data", path / "secrets", flags=NOT_DURABLE, new=MAJOR)
        return
    first = Path(os.environ[SHARED]) / "postgres"
    with open(first.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not first.exists():
            new = first.with_suffix(".new")
            new.mkdir(mode=0o711)
            secrets.generate(new / "secrets")
            native_postgres.initialise(new / "data", new / "secrets", flags=NOT_DURABLE, new=MAJOR)
            new.rename(first)
    subprocess.run(["cp", "--archive", f"{first}/.", path], check=True)


@contextmanager
def postgres(flags: tuple[str, ...] = ()) -> Iterator[Postgres]:
    """A PostgreSQL made by postgres/init; it forgets everything and, unlike the stack's, doesn't wait for the disk."""
    flags = (*NOT_DURABLE, *flags)
    with folder("postgres") as path:
        path.chmod(0o711)  # as root, PostgreSQL runs as another user and must get through to its own folder
        _initialise(path)
        running = start(lambda port: servers.postgres(path / "data", port, flags=flags), path)
        try:
            yield Postgres(servers.HOST, running.port, path / "data", path / "secrets", running)
        finally:
            running.stop(signal.SIGINT)  # PostgreSQL's "fast" shutdown: doesn't wait for clients


@contextmanager
def prometheus(config: Path | str, flags: tuple[str, ...] = ()) -> Iterator[Prometheus]:
    """Prometheus with a folder that holds prometheus.yml, with a configuration file, or with a file's text."""
    with folder("prometheus") as path:
        file = _config_file(config, path, "prometheus.yml")
        running = start(lambda port: servers.prometheus(file, path / "data", port, flags=flags), path, Prometheus)
        try:
            yield running
        finally:
            running.stop()


def streaming_endpoint() -> str:
    """What slo.toml says that streams: the service's /chat, or else an endpoint that /chat stands for in tests."""
    return "/chat" if re.fullmatch(SETTINGS.streaming, "/chat") else examples(SETTINGS.streaming)[0]


def streaming_as_set(prometheus: Path) -> None:
    """Have a folder like prometheus/ call /chat an endpoint that streams, whatever slo.toml says."""
    if streaming_endpoint() == "/chat":
        return
    file = prometheus / "prometheus.yml"
    rule = f'{{source_labels: [endpoint], regex: /chat, target_label: endpoint, replacement: "{streaming_endpoint()}"}}'
    before = r"(job_name: app\n(?:    .*\n)*?    metric_relabel_configs:\n)"
    text, found = re.subn(before, rf"\1      - {rule}\n", file.read_text())
    assert found == 1
    file.write_text(text)


def faster(prometheus: Path, interval: str = "1s") -> None:
    """Have a folder like prometheus/ scrape targets, and evaluate what dashboards show, at this interval.

    It collects garbage as rarely as all servers here: the stack's setting would cost much at fifteen times the pace.
    """
    file = prometheus / "prometheus.yml"
    text = re.sub(r"(scrape_interval|evaluation_interval|scrape_timeout): \S+", rf"\1: {interval}", file.read_text())
    file.write_text(re.sub(r"gogc: \d+", f"gogc: {GARBAGE_COLLECTION['GOGC']}", text))
    rules = prometheus / "rules"
    if rules.is_symlink():
        project = rules.resolve()
        rules.unlink()
        shutil.copytree(project, rules)
    dashboards = rules / "dashboards.yml"
    dashboards.write_text(re.sub(r"^    interval: .*\n", "", dashboards.read_text(), flags=re.MULTILINE))


@contextmanager
def prometheus_of_the_stack(
    interval: str = "1s", also: str = "", data: Path | None = None, **targets: Running | int
) -> Iterator[Prometheus]:
    """Prometheus with the stack's own configuration and rules, scraping these targets (scrape job -> server or port).

    `also` goes to the end of its configuration; `data` is its folder, where another one has run before.
    It scrapes itself as the job `prometheus`. Scrapes and evaluations come every `interval` instead of 15 s.
    """
    with folder("stack") as path:
        secrets.generate(path / "secrets")
        configs.link("prometheus", path / "config", path / "secrets")
        file = path / "config" / "prometheus.yml"
        faster(path / "config", interval)
        streaming_as_set(path / "config")
        with open(file, "a") as config:
            config.write(also)

        def make(port: int) -> servers.Server:
            numbers = {job: target if isinstance(target, int) else target.port for job, target in targets.items()}
            shutil.rmtree(path / "config" / "targets", ignore_errors=True)
            addresses = {job: [f"{servers.HOST}:{number}"] for job, number in {**numbers, "prometheus": port}.items()}
            configs.write_targets(path / "config", addresses)
            # What fires before Alertmanager is discovered is sent again after this time; the stack's own is longer.
            return servers.prometheus(file, data or path / "data", port, flags=("--rules.alert.resend-delay=15s",))

        running = start(make, path, Prometheus)
        try:
            yield running
        finally:
            running.stop()


class VictoriaMetrics(Running, PrometheusApi):
    """A VictoriaMetrics on a free port."""

    def visible(self) -> None:
        """Have all samples that arrived until now in the answers, which else come within a second or so."""
        urllib.request.urlopen(f"{self.url}/internal/force_flush", timeout=30).close()


@contextmanager
def victoriametrics(data: Path | None = None, port: int = 0, flags: tuple[str, ...] = ()) -> Iterator[VictoriaMetrics]:
    """VictoriaMetrics as the stack starts it, with `flags` in addition; answers show what came up to now."""
    flags = ("-search.latencyOffset=0s", "-search.disableCache", *flags)

    def make(free: int) -> servers.Server:
        server = servers.victoriametrics(data or path / "data", port or free, {"LONGTERM_RETENTION": "10y"})
        return replace(server, command=(*server.command, *flags))

    with folder("victoriametrics") as path:
        running = start(make, path, VictoriaMetrics)
        try:
            yield running
        finally:
            running.stop()


@contextmanager
def alertmanager(config: Path | str, flags: tuple[str, ...] = ()) -> Iterator[Alertmanager]:
    """Alertmanager with a folder that holds alertmanager.yml, with a configuration file, or with a file's text."""
    with folder("alertmanager") as path:
        file = _config_file(config, path, "alertmanager.yml")
        running = start(lambda port: servers.alertmanager(file, path / "data", port, flags=flags), path, Alertmanager)
        try:
            yield running
        finally:
            running.stop()


@contextmanager
def node_exporter() -> Iterator[Running]:
    with folder("node-exporter") as path:
        running = start(servers.node_exporter, path)
        try:
            yield running
        finally:
            running.stop()


@contextmanager
def postgres_exporter(database: Postgres) -> Iterator[Running]:
    with folder("postgres-exporter") as path:
        password = database.secrets / "exporter_db_password"
        running = start(lambda port: servers.postgres_exporter(port, database.port, password), path)
        try:
            yield running
        finally:
            running.stop()


@dataclass(frozen=True)
class Valkey:
    """A running Valkey or Redis, and the file with its password."""

    running: Running
    password_file: Path

    @property
    def url(self) -> str:
        return f"redis://{servers.HOST}:{self.running.port}"

    @property
    def password(self) -> str:
        return self.password_file.read_text()


@contextmanager
def valkey() -> Iterator[Valkey]:
    with folder("valkey") as path:
        secrets.generate(path / "secrets")
        password = path / "secrets" / "valkey_password"
        running = start(lambda port: servers.valkey(port, password), path)
        try:
            yield Valkey(running, password)
        finally:
            running.stop()


@contextmanager
def app(environment: Mapping[str, str]) -> Iterator[Running]:
    """The service by `python -m app` with these settings (a database's: `Postgres.environment()`)."""
    with folder("app") as path:
        running = start(lambda port: servers.app(port, {**environment, "TMPDIR": str(path)}), path)
        try:
            yield running
        finally:
            running.stop()


@contextmanager
def proxy(service: Running) -> Iterator[tuple[Running, str]]:
    """HAProxy with the stack's configuration in front of the service (its port is that of its metrics), its address."""
    public = 0
    with folder("proxy") as path:
        replicas = path / "replicas.cfg"
        configs.write_replicas(replicas, [service.server.address])

        def make(port: int) -> servers.Server:
            nonlocal public
            public = free_port()
            return servers.proxy(public, port, replicas)

        running = start(make, path)
        try:
            yield running, f"http://{servers.HOST}:{public}"
        finally:
            running.stop()


def _config_file(config: Path | str, folder: Path, name: str) -> Path:
    if isinstance(config, str):
        (folder / name).write_text(config)
        return folder / name
    return config / name if config.is_dir() else config
