"""The native stack as a whole: its servers with this project's settings and configuration files."""

from __future__ import annotations

import shutil
from pathlib import Path

from native import configs, postgres, servers
from native.secrets import METRICS_TOKEN
from native.servers import HOST, Server
from native.settings import Settings
from native.targets import targets


class Stack:
    """What `make up` starts, from these settings; nothing is touched before `prepare()`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = settings.folder("SIGHTLINE_STATE")
        self.data = self.state / "data"
        self.secrets = settings.folder("SECRETS_DIR")
        self.has_grafana = bool(settings.values.get("GRAFANA_HOME") or shutil.which("grafana"))

    @property
    def ports(self) -> dict[str, int]:
        """Setting -> port of every server that will listen."""
        names = ["APP", "PROMETHEUS", "ALERTMANAGER", "POSTGRES", "NODE_EXPORTER", "POSTGRES_EXPORTER"]
        names += ["GRAFANA"] if self.has_grafana else []
        return {f"{name}_PORT": self.settings.port(f"{name}_PORT") for name in names}

    def servers(self) -> list[Server]:
        """All servers in the order in which they need each other."""
        port, values = self.settings.port, self.settings.values
        exporter_password = self.secrets / "exporter_db_password"
        stack = [
            servers.postgres(self.data / "postgres", port("POSTGRES_PORT")),
            servers.postgres_exporter(port("POSTGRES_EXPORTER_PORT"), port("POSTGRES_PORT"), exporter_password),
            servers.node_exporter(port("NODE_EXPORTER_PORT")),
            servers.app(port("APP_PORT"), self._app_environment()),
            servers.alertmanager(
                self._configs("alertmanager") / "alertmanager.yml",
                self.data / "alertmanager",
                port("ALERTMANAGER_PORT"),
            ),
            servers.prometheus(
                self._configs("prometheus") / "prometheus.yml",
                self.data / "prometheus",
                port("PROMETHEUS_PORT"),
                grafana_port=port("GRAFANA_PORT"),
                flags=(
                    f"--storage.tsdb.retention.time={values['PROMETHEUS_RETENTION_TIME']}",
                    f"--storage.tsdb.retention.size={values['PROMETHEUS_RETENTION_SIZE']}",
                ),
            ),
        ]
        if self.has_grafana:
            stack.append(
                servers.grafana(
                    self.data / "grafana",
                    port("GRAFANA_PORT"),
                    prometheus_url=f"http://{HOST}:{port('PROMETHEUS_PORT')}",
                    alertmanager_url=f"http://{HOST}:{port('ALERTMANAGER_PORT')}",
                    secrets=self.secrets,
                    home=values.get("GRAFANA_HOME", ""),
                )
            )
        return stack

    def prepare(self) -> None:
        """Make the folders, the address books and the database."""
        self.make_folders()
        for name in ("prometheus", "alertmanager", "grafana"):
            (self.data / name).mkdir(mode=0o700, exist_ok=True)
        self._link_configs()
        postgres.initialise(self.data / "postgres", self.secrets)

    def make_folders(self) -> None:
        for folder in (self.state, self.data):  # PostgreSQL, run by another user where root starts it, gets through
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)

    def targets(self) -> dict[str, str]:
        """Job -> health of what Prometheus scrapes; empty if Prometheus can't be asked."""
        return targets(f"http://{HOST}:{self.settings.port('PROMETHEUS_PORT')}")

    def _app_environment(self) -> dict[str, str]:
        return {
            "APP_WORKERS": self.settings.values["APP_WORKERS"],
            "FAULTS_TOKEN_FILE": str(self.secrets / "faults_token"),
            **self.settings.app_environment,
            "DATABASE_HOST": HOST,
            "DATABASE_PORT": str(self.settings.port("POSTGRES_PORT")),
            "DATABASE_NAME": "sightline",
            "DATABASE_USER": "sightline",
            "DATABASE_PASSWORD_FILE": str(self.secrets / "app_db_password"),
            "METRICS_TOKEN_FILE": str(self.secrets / METRICS_TOKEN),
        }

    def _configs(self, name: str) -> Path:
        return self.state / "run" / name

    def _link_configs(self) -> None:
        names = {
            "app": "APP_PORT",
            "postgres": "POSTGRES_EXPORTER_PORT",
            "node": "NODE_EXPORTER_PORT",
            "prometheus": "PROMETHEUS_PORT",
            "alertmanager": "ALERTMANAGER_PORT",
            "locust": "LOCUST_METRICS_PORT",
            **({"grafana": "GRAFANA_PORT"} if self.has_grafana else {}),
        }
        (self.state / "run").mkdir(mode=0o700, exist_ok=True)
        configs.link("alertmanager", self._configs("alertmanager"), self.secrets)
        prometheus = configs.link("prometheus", self._configs("prometheus"), self.secrets)
        configs.write_targets(prometheus, {job: [f"{HOST}:{self.settings.port(name)}"] for job, name in names.items()})
