"""Every server of the stack: how it is started and how its health is checked.

One definition for `make up` and for the tests, which start the same servers on free ports in temporary folders. Flags
and variables are those of the containers in docker-compose.yml; here stands only what differs: paths, addresses, ports.
Everything listens on 127.0.0.1 only. Passwords are handed over as files, never as arguments.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ops import http
from ops.dotenv import fill
from ops.paths import PROJECT
from ops.programs import find, from_debian

HOST = "127.0.0.1"
PROBE_TIMEOUT = 5.0  # seconds
# What every server inherits of the user's environment: nothing that could hold a secret.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy")  # in either case; the way to LLM providers and receivers
NO_SETTINGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Server:
    """A server to be started; `probe()` returns the problem of the running server, None if it is healthy."""

    name: str
    port: int
    command: tuple[str, ...]
    probe: Callable[[], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    page: str | None = None  # what a browser can open
    folder: Path = PROJECT  # where it is started
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def http_probe(url: str, contains: str = "") -> Callable[[], str | None]:
    def probe() -> str | None:
        try:
            body = http.get(url, PROBE_TIMEOUT)
        except urllib.error.HTTPError as error:
            return f"answers {error.code} at {url}"
        except (OSError, ValueError):
            return f"does not answer at {url}"
        return None if contains in body else f"answers at {url}, but without '{contains}'"

    return probe


@cache
def _container(service: str) -> dict[str, Any]:
    """A service's definition in docker-compose.yml."""
    services: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    return services[service]


def _flags(service: str, settings: Mapping[str, str], *own: str) -> tuple[str, ...]:
    """The container's flags; `own` replace those of the same names and add others."""
    words = (*(fill(word, settings) for word in _container(service)["command"]), *own)
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _environment(service: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The container's environment variables."""
    return {name: fill(value, settings) for name, value in _container(service)["environment"].items()}


def prometheus(
    config: Path, data: Path, port: int, *, settings: Mapping[str, str] = NO_SETTINGS, flags: tuple[str, ...] = ()
) -> Server:
    """Prometheus with `config`; links in alerts lead to the addresses in `settings`, by default to this machine.

    It serves the runbooks itself.
    """
    settings = {**settings, "PROMETHEUS_PORT": str(port)}
    own = (
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={HOST}:{port}",
        f"--web.user-assets={PROJECT / 'docs'}",
        *flags,
    )
    words = _flags("prometheus", settings, *own)
    if from_debian("prometheus"):  # which has its pages at /classic only
        words = tuple(f"{word}/classic" if word.startswith("--web.external-url=") else word for word in words)
    return Server(
        name="prometheus",
        port=port,
        command=(str(find("prometheus")["prometheus"]), *words),
        environment=_environment("prometheus", settings),
        probe=http_probe(f"http://{HOST}:{port}/-/ready"),
        page=f"http://localhost:{port}",
    )


def alertmanager(
    config: Path, data: Path, port: int, *, settings: Mapping[str, str] = NO_SETTINGS, flags: tuple[str, ...] = ()
) -> Server:
    """Alertmanager with `config`; links to it lead to the address in `settings`, by default to this machine."""
    settings = {**settings, "ALERTMANAGER_PORT": str(port)}
    alone = _container("alertmanager")["entrypoint"][1:]
    own = (f"--config.file={config}", f"--storage.path={data}", f"--web.listen-address={HOST}:{port}", *alone, *flags)
    return Server(
        name="alertmanager",
        port=port,
        command=(str(find("alertmanager")["alertmanager"]), *_flags("alertmanager", settings, *own)),
        probe=http_probe(f"http://{HOST}:{port}/-/ready"),
        page=f"http://localhost:{port}",
        folder=config.parent,  # the secrets' names in the configuration are relative to where it is started
    )


def node_exporter(port: int) -> Server:
    return Server(
        name="node-exporter",
        port=port,
        # Debian's build reads files from a folder that need not exist, and reports an error for ever.
        command=(
            str(find("node_exporter")["node_exporter"]),
            f"--web.listen-address={HOST}:{port}",
            "--collector.textfile.directory=",
        ),
        probe=http_probe(f"http://{HOST}:{port}/metrics", contains="node_cpu_seconds_total"),
    )


def postgres_exporter(port: int, database_port: int, password_file: Path) -> Server:
    return Server(
        name="postgres-exporter",
        port=port,
        command=(
            str(find("postgres_exporter")["postgres_exporter"]),
            f"--web.listen-address={HOST}:{port}",
            f"@{PROJECT / 'postgres' / 'exporter.args'}",
        ),
        environment={
            "DATA_SOURCE_URI": f"{HOST}:{database_port}/sightline?sslmode=disable",
            "DATA_SOURCE_USER": "sightline_exporter",
            "DATA_SOURCE_PASS_FILE": str(password_file),
        },
        probe=http_probe(f"http://{HOST}:{port}/metrics", contains="\npg_up 1"),
    )


def postgres(data: Path, port: int, *, flags: tuple[str, ...] = ()) -> Server:
    """PostgreSQL on a data folder that `ops.postgres.initialise` has made."""
    from ops.postgres import as_owner, client_environment, major  # it needs the command lines above

    programs = find("postgres", "pg_isready", major=major(data))
    settings = {"listen_addresses": HOST, "port": port, "unix_socket_directories": data, "logging_collector": "off"}
    options = [f"-c{name}={value}" for name, value in settings.items()]

    def probe() -> str | None:
        place = (f"--host={HOST}", f"--port={port}", f"--timeout={PROBE_TIMEOUT:.0f}")
        answer = subprocess.run([programs["pg_isready"], "--quiet", *place], env=client_environment())
        return None if answer.returncode == 0 else f"accepts no connections on port {port}"

    return Server(
        name="postgres",
        port=port,
        command=as_owner(str(programs["postgres"]), "-D", str(data), *options, *flags),
        probe=probe,
        stop_signal=signal.SIGINT,  # "fast": ends its clients' connections instead of waiting for them
    )


def valkey(port: int, password_file: Path) -> Server:
    """Valkey, or Redis where the machine has that: the store of active users."""
    container = _container("valkey")
    script = container["entrypoint"][2].replace("$$", "$").replace("exec valkey-server", 'exec "$0"')
    script = script.replace("/run/secrets/valkey_password", shlex.quote(str(password_file)))
    own = ("--bind", HOST, "--port", str(port), "--daemonize", "no")

    def probe() -> str | None:
        try:
            with socket.create_connection((HOST, port), PROBE_TIMEOUT) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError:
            return f"accepts no connections on port {port}"
        return None if answer.startswith((b"+PONG", b"-NOAUTH")) else f"answers {answer!r} on port {port}"

    return Server(
        name="valkey",
        port=port,
        command=("sh", "-ec", script, str(find("valkey-server")["valkey-server"]), *container["command"], *own),
        probe=probe,
    )


def proxy(port: int, metrics_port: int, replicas: Path) -> Server:
    """HAProxy in front of the replicas in a file of `configs.write_replicas`; it ends when its requests have."""
    files = ("-f", str(PROJECT / "proxy" / "haproxy.cfg"), "-f", str(replicas))
    return Server(
        name="proxy",
        port=metrics_port,
        command=(str(find("haproxy")["haproxy"]), "-db", *files),
        environment={"PROXY_ADDRESS": f"{HOST}:{port}", "PROXY_METRICS_ADDRESS": f"{HOST}:{metrics_port}"},
        probe=http_probe(f"http://{HOST}:{metrics_port}/healthz"),
        page=f"http://localhost:{port}/",
        stop_signal=signal.SIGUSR1,
    )


def app(port: int, environment: Mapping[str, str], name: str = "app") -> Server:
    """The reference service; `environment` holds its settings (DATABASE_..., LLM_..., APP_WORKERS)."""
    return Server(
        name=name,
        port=port,
        command=(sys.executable, "-m", "app"),
        environment={**environment, "APP_HOST": HOST, "APP_PORT": str(port)},
        probe=http_probe(f"http://{HOST}:{port}/readyz"),
        page=f"http://localhost:{port}/",
    )


def grafana(
    data: Path,
    port: int,
    prometheus_url: str,
    alertmanager_url: str,
    secrets: Path,
    home: str,
    longterm_url: str,
    settings: Mapping[str, str] = NO_SETTINGS,
) -> Server:
    """Grafana from `home` (the folder of a release) or, if empty, as installed; with the container's settings."""
    program = Path(home, "bin", "grafana") if home else Path(shutil.which("grafana") or "grafana").resolve()
    release = program.parent.parent
    environment = {
        name: value.replace("/etc/grafana", str(PROJECT / "grafana")).replace("/run/secrets", str(secrets))
        for name, value in _environment("grafana", {**settings, "GRAFANA_PORT": str(port)}).items()
    }
    return Server(
        name="grafana",
        port=port,
        command=(
            str(program),
            "server",
            # The packages of Linux distributions keep the program apart from the rest of the release.
            f"--homepath={release if (release / 'public').exists() else '/usr/share/grafana'}",
        ),
        environment={
            **environment,
            "GF_SERVER_HTTP_ADDR": HOST,
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_PATHS_DATA": str(data),
            "GF_PATHS_LOGS": str(data / "log"),
            "GF_PATHS_PLUGINS": str(data / "plugins"),
            "PROMETHEUS_URL": prometheus_url,
            "ALERTMANAGER_URL": alertmanager_url,
            "LONGTERM_URL": longterm_url,
        },
        probe=http_probe(f"http://{HOST}:{port}/api/health"),
        page=f"http://localhost:{port}",
    )


def victoriametrics(data: Path, port: int, settings: Mapping[str, str] = NO_SETTINGS) -> Server:
    """VictoriaMetrics, the long-term store, with the container's flags except paths and addresses."""
    service = _container("victoriametrics")
    start, *words = (fill(word, settings) for word in service["command"])
    program = find("victoria-metrics")["victoria-metrics"]
    own = (f"-storageDataPath={data}", f"-httpListenAddr={HOST}:{port}")
    flags = {word.partition("=")[0]: word for word in (*words, *own)}.values()
    return Server(
        name="victoriametrics",
        port=port,
        command=(*service["entrypoint"], start.replace("/victoria-metrics-prod", shlex.quote(str(program))), *flags),
        probe=http_probe(f"http://{HOST}:{port}/health"),
        page=f"http://localhost:{port}/vmui",
    )


def plain_environment() -> dict[str, str]:
    """What every server inherits from the user's environment: no secrets, and no proxy for this machine's addresses."""
    proxies = {name.upper(): os.environ.get(name) or os.environ.get(name.upper(), "") for name in PROXIES}
    if proxies["HTTP_PROXY"] or proxies["HTTPS_PROXY"]:
        given = re.sub(r"\[([0-9A-Fa-f:.]+)\]", r"\1", proxies["NO_PROXY"])  # [::1], which httpx takes for a bad port
        proxies["NO_PROXY"] = ",".join(filter(None, [given, "localhost,127.0.0.1"]))
    inherited = {name: os.environ.get(name) for name in INHERITED}
    return {name: value for name, value in {**inherited, **proxies}.items() if value}
