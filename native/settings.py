"""The settings of native mode: the environment's, then those of `.env`, then the defaults; named as in Docker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from app.settings import Settings as AppSettings
from native import ports
from native.paths import HOME, PROJECT

DEFAULTS = {
    "APP_PORT": "8000",
    "PROMETHEUS_PORT": "9090",
    "ALERTMANAGER_PORT": "9093",
    "GRAFANA_PORT": "3000",
    "POSTGRES_PORT": "5432",
    "NODE_EXPORTER_PORT": "9100",
    "POSTGRES_EXPORTER_PORT": "9187",
    "LOCUST_METRICS_PORT": "9646",
    "APP_WORKERS": "2",
    "PROMETHEUS_RETENTION_TIME": "32d",
    "PROMETHEUS_RETENTION_SIZE": "5GB",
    "SIGHTLINE_STATE": str(HOME),
    "SECRETS_DIR": str(PROJECT / "secrets"),
    "BACKUPS_DIR": str(PROJECT / "backups"),
}


@dataclass(frozen=True)
class Settings:
    """All settings by name; empty ones count as not given."""

    values: Mapping[str, str]

    def port(self, name: str) -> int:
        """Raises NativeError where the setting is no port number."""
        return ports.number(name, self.values[name])

    def folder(self, name: str) -> Path:
        return (PROJECT / self.values[name]).resolve()

    @property
    def app_environment(self) -> dict[str, str]:
        """Every setting of the service that somebody has made."""
        names = [field.upper() for field in AppSettings.model_fields]
        return {name: self.values[name] for name in names if name in self.values}


def load() -> Settings:
    made = {**dotenv_values(PROJECT / ".env"), **os.environ}
    return Settings({**DEFAULTS, **{name: value for name, value in made.items() if value}})
