"""Real servers for tests, on free ports of 127.0.0.1 in temporary folders.

As context managers here, for fixtures of any scope, and as fixtures in conftest.py. A server that can't be had fails
the test with a sentence that says why; nothing is skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil

from ops import configs, secrets, servers
from ops import postgres as native_postgres
from ops.paths import reachable

T = TypeVar("T")
PATIENCE = 240.0  # seconds; two loaded cores need some, and where all is well nobody waits for its end
NOT_YET = (OSError, AssertionError, LookupError, ValueError, httpx2.TransportError, psutil.Error)


def wait_until(predicate: Callable[[], T], timeout: float = PATIENCE, interval: float | None = None) -> T:
    """Call `predicate` until it returns something true, and return that.

    Fails with the last value, or the last exception (one of NOT_YET), after `timeout` seconds. It is called every
    `interval` seconds; by default ten times a second at first, and twice a second after a while, as looking takes time
    from what is waited for.
    """
    began = time.monotonic()
    while True:
        failure: Exception | None = None
        value: T | None = None
        try:
            value = predicate()
        except NOT_YET as error:
            failure = error
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"not true after {timeout:g} s; last value: {value!r}") from failure
        time.sleep(min(max(0.1, waited / 10), 0.5) if interval is None else interval)


GARBAGE_COLLECTION = {"GOGC": "400"}  # of Go's programs: more memory, and a quarter less time of promtool
PORTS = range(20_000, 32_768)  # below those that Linux gives to clients, which would take one between two starts
_reserved: list[socket.socket] = []


@contextmanager
def web_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server whose requests this class answers, each in a thread of its own."""
    server = ThreadingHTTPServer((servers.HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{servers.HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work(over)` runs in a thread until the end of the context, which sets `over` and waits for it."""
    over = threading.Event()
    worker = threading.Thread(target=work, args=(over,))
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def default_signals() -> None:
    """As `preexec_fn`: a program reacts as in a terminal, also where the tests run behind `nohup` or a shell's &."""
    for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


def free_port() -> int:
    """A port that nothing listens on, reserved for this process among all test processes of the machine.

    The reservation is an abstract Unix socket named after the port, which goes with the process: the server may start
    late and more than once.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if reservation := _reserve(port):
            _reserved.append(reservation)
            return port
    raise AssertionError("no port is free")


def _reserve(port: int) -> socket.socket | None:
    """The reservation, None where the port is taken."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0sightline-tests-port-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((servers.HOST, port))
    except OSError:
        reservation.close()
        return None
    return reservation


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free, and reserved, as `free_port` has it."""
    while True:
        first = free_port()
        row = [_reserve(first + number) for number in range(1, count)]
        if all(row):
            _reserved.extend(one for one in row if one)
            return first


class Running:
    """A server that was started and answers."""

    def __init__(self, server: servers.Server, log: Path) -> None:
        self.server = server
        self.port = server.port
        self.url = server.url
        self.log_file = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                # The server goes when the tests go, however they end.
                ["setpriv", "--pdeathsig", "INT", "--", *server.command],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**servers.plain_environment(), **GARBAGE_COLLECTION, **server.environment},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait(self) -> None:
        def ready() -> bool:
            exit_code = self.process.poll()
            if exit_code is not None:
                raise RuntimeError(f"{self.server.name} ended with exit code {exit_code}:\n{self.log[-2000:]}")
            return self.server.probe() is None

        try:
            wait_until(ready)
        except AssertionError as error:
            problem = self.server.probe()
            raise AssertionError(f"{self.server.name} {problem}. The end of its log:\n{self.log[-2000:]}") from error

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End it, kindly at first; calling it again does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def suspended(server: Running) -> Iterator[None]:
    """A server, with its processes, that answers nothing and closes no connection."""
    main = psutil.Process(server.process.pid)
    main.suspend()  # first: it starts no process meanwhile, and none that ends vanishes
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(processes):  # the main one last, which would reap those that have ended
            process.resume()


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


def start(make: Callable[[int], servers.Server], folder: Path, kind: type[Running] = Running) -> Any:
    """Start a server on a free port and wait until it answers; once more if another process was faster at the port."""
    for attempt in range(3):
        server = make(free_port())
        running = kind(server, folder / f"{server.name}.log")
        try:
            running.wait()
        except BaseException as error:
            running.stop()
            if attempt < 2 and isinstance(error, RuntimeError) and "address already in use" in running.log.lower():
                continue
            raise
        return running
    raise AssertionError("unreachable")


def temporary_folder(prefix: str) -> Path:
    """A new private folder that root can hand to the unprivileged user, wherever TMPDIR points."""
    parent = Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent if reachable(parent) else "/var/tmp"))


@contextmanager
def folder(name: str) -> Iterator[Path]:
    path = temporary_folder(f"sightline-{name}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


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
        with open(file, "a") as config:
            config.write(also)

        def make(port: int) -> servers.Server:
            numbers = {job: target if isinstance(target, int) else target.port for job, target in targets.items()}
            shutil.rmtree(path / "config" / "targets", ignore_errors=True)
            books = {job: [f"{servers.HOST}:{number}"] for job, number in {**numbers, "prometheus": port}.items()}
            configs.write_targets(path / "config", books)
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
