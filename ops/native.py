"""The servers of native mode: which ones run, on which ports, and their configuration files.

`ops.processes` starts and stops them; how each is started is in `ops.servers`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ops import configs, postgres, programs, remote_write, servers
from ops.console import log
from ops.errors import OpsError
from ops.secrets import METRICS_TOKEN
from ops.servers import HOST, Server
from ops.settings import Settings, of_service

DRAIN_SECONDS = 3  # longer than the proxy needs to notice that a replica is shutting down
TARGETS = {  # scrape job -> setting with its port; beside the service and its proxy
    "postgres": "POSTGRES_EXPORTER_PORT",
    "node": "NODE_EXPORTER_PORT",
    "prometheus": "PROMETHEUS_PORT",
    "alertmanager": "ALERTMANAGER_PORT",
    "locust": "LOCUST_METRICS_PORT",
    "grafana": "GRAFANA_PORT",
}


class NativeServers:
    """The servers for one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = settings.folder("SIGHTLINE_STATE")
        self.data = self.state / "data"
        self.longterm = self.state / "longterm"  # VictoriaMetrics' data: not part of backups and restores
        self.secrets = settings.folder("SECRETS_DIR")
        self.replicas_file = self.state / "run" / "replicas.cfg"
        self.has_proxy = settings.replicas > 1

    @property
    def has_grafana(self) -> bool:
        return bool(self._grafana_home or shutil.which("grafana"))

    @property
    def _grafana_home(self) -> str:
        return self.settings.get("GRAFANA_HOME") or str(programs.grafana() or "")

    @property
    def postgres_major(self) -> int | None:
        """The major version of PostgreSQL that the data are of; None where there are none yet."""
        return postgres.major(self.data / "postgres")

    @property
    def ports(self) -> dict[str, int]:
        """Setting -> port of every server that will listen."""
        names = ["APP", "PROMETHEUS", "ALERTMANAGER", "POSTGRES", "NODE_EXPORTER", "POSTGRES_EXPORTER"]
        names += ["GRAFANA"] if self.has_grafana else []
        names += ["LONGTERM"] if self.settings.get(remote_write.RETENTION) else []
        names += ["VALKEY"] if self.settings.has_valkey else []
        names += ["PROXY_METRICS"] if self.has_proxy else []
        replicas = self.replica_ports.items() if self.has_proxy else ()
        return {
            **{f"{name}_PORT": self.settings.port(f"{name}_PORT") for name in names},
            **{f"APP_REPLICA_PORT (of {name})": port for name, port in replicas},
        }

    @property
    def replica_ports(self) -> dict[str, int]:
        """Server -> port of each replica of the service. A single one needs no proxy."""
        if not self.has_proxy:
            return {"app": self.settings.port("APP_PORT")}
        first = self.settings.port("APP_REPLICA_PORT")
        names = ["app", *(f"app-{number}" for number in range(2, self.settings.replicas + 1))]
        return {name: first + number for number, name in enumerate(names)}

    def servers(self) -> list[Server]:
        """All servers in the order in which they depend on each other."""
        port = self.settings.port
        settings = self.settings.values
        database = port("POSTGRES_PORT")
        alertmanager_yml = self.config_folder("alertmanager") / "alertmanager.yml"
        prometheus_yml = self.config_folder("prometheus") / "prometheus.yml"
        made = [
            servers.postgres(self.data / "postgres", database),
            servers.postgres_exporter(port("POSTGRES_EXPORTER_PORT"), database, self.secrets / "exporter_db_password"),
            servers.node_exporter(port("NODE_EXPORTER_PORT")),
            *(servers.app(number, self._app_environment(), name) for name, number in self.replica_ports.items()),
        ]
        if self.settings.has_valkey:
            made.insert(0, servers.valkey(port("VALKEY_PORT"), self.secrets / "valkey_password"))
        if self.has_proxy:
            made.append(servers.proxy(port("APP_PORT"), port("PROXY_METRICS_PORT"), self.replicas_file))
        made += [
            servers.alertmanager(
                alertmanager_yml, self.data / "alertmanager", port("ALERTMANAGER_PORT"), settings=settings
            ),
            servers.prometheus(prometheus_yml, self.data / "prometheus", port("PROMETHEUS_PORT"), settings=settings),
        ]
        if self.settings.get(remote_write.RETENTION):
            made.append(servers.victoriametrics(self.longterm, port("LONGTERM_PORT"), settings))
        if self.has_grafana:
            made.append(
                servers.grafana(
                    self.data / "grafana",
                    port("GRAFANA_PORT"),
                    prometheus_url=f"http://{HOST}:{port('PROMETHEUS_PORT')}",
                    alertmanager_url=f"http://{HOST}:{port('ALERTMANAGER_PORT')}",
                    secrets=self.secrets,
                    home=self._grafana_home,
                    longterm_url=self._longterm_url,
                    settings={**settings, **remote_write.grafana(self.settings)},
                )
            )
        return made

    def server(self, name: str) -> Server:
        """The server of this name.

        Raises:
            OpsError: no server has this name.
        """
        found = {server.name: server for server in self.servers()}
        if name not in found:
            raise OpsError(f"There is no server {name}; the servers are {', '.join(found)}.")
        return found[name]

    def _app_environment(self) -> dict[str, str]:
        """The service's settings, and the addresses of the rest of the stack."""
        made = {name: self.settings.get(name) for name in of_service() if self.settings.get(name)}
        own_store = self.settings.has_valkey
        return {
            "APP_WORKERS": self.settings.get("APP_WORKERS"),
            "FAULTS_TOKEN_FILE": str(self.secrets / "faults_token"),
            "ACTIVE_USERS_KEY_FILE": str(self.secrets / "active_users_key"),
            "ACTIVE_USERS_STORE_PASSWORD_FILE": str(self.secrets / "valkey_password"),
            **({"APP_DRAIN_SECONDS": str(DRAIN_SECONDS), "APP_PROXIES": HOST} if self.has_proxy else {}),
            **made,
            **({"ACTIVE_USERS_STORE": f"redis://{HOST}:{self.settings.port('VALKEY_PORT')}"} if own_store else {}),
            **self._fixed(),
        }

    def _fixed(self) -> dict[str, str]:
        """The service's settings that the stack sets itself, overriding `.env` and the environment."""
        return {
            "APP_HOST": HOST,
            "DATABASE_HOST": HOST,
            "DATABASE_PORT": str(self.settings.port("POSTGRES_PORT")),
            "DATABASE_NAME": "sightline",
            "DATABASE_USER": "sightline",
            "DATABASE_PASSWORD": "",  # otherwise it would take precedence over the file
            "DATABASE_PASSWORD_FILE": str(self.secrets / "app_db_password"),
            "METRICS_TOKEN_FILE": str(self.secrets / METRICS_TOKEN),
        }

    def warn_of_unused_settings(self) -> None:
        """Warn of settings of the service in `.env` that the stack overrides."""
        for name in sorted(self.settings.from_file & self._fixed().keys()):
            log.warning(".env: %s has no effect in native mode; the stack sets it itself.", name)

    # Configuration files

    def config_folder(self, name: str) -> Path:
        """The folder with the configuration of Prometheus or Alertmanager."""
        return self.state / "run" / name

    @property
    def _longterm_url(self) -> str:
        return f"http://{HOST}:{self.settings.port('LONGTERM_PORT')}"

    def write_configs(self) -> None:
        also = remote_write.section(self.settings, self._longterm_url)
        configs.write_prometheus(self.config_folder("prometheus"), also)

    def link_configs(self) -> None:
        """Make these folders, with the target files for these ports."""
        (self.state / "run").mkdir(mode=0o700, exist_ok=True)
        configs.link("alertmanager", self.config_folder("alertmanager"), self.secrets)
        prometheus = configs.link("prometheus", self.config_folder("prometheus"), self.secrets)
        jobs = {job: name for job, name in TARGETS.items() if job != "grafana" or self.has_grafana}
        addresses = {job: [f"{HOST}:{self.settings.port(name)}"] for job, name in jobs.items()}
        addresses["app"] = [f"{HOST}:{port}" for port in self.replica_ports.values()]
        if self.has_proxy:
            addresses["proxy"] = [f"{HOST}:{self.settings.port('PROXY_METRICS_PORT')}"]
        configs.write_targets(prometheus, addresses)
        self.write_configs()
        configs.write_replicas(self.replicas_file, addresses["app"])
