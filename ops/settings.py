"""Settings: the environment's, then those of `.env`, then the defaults; read once, the same in both modes.

Standard library only: Docker mode works before anything is installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops import ports
from ops.errors import OpsError
from ops.paths import HOME, PROJECT

FILE = PROJECT / ".env"
DEFAULTS = {
    "APP_PORT": "8000",
    "PROMETHEUS_PORT": "9090",
    "ALERTMANAGER_PORT": "9093",
    "GRAFANA_PORT": "3000",
    "LOCUST_PORT": "8089",
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
    "RELEASES_DIR": str(HOME / "archives"),
}
PATHS = (  # of files and folders
    "SIGHTLINE_STATE",
    "SECRETS_DIR",
    "BACKUPS_DIR",
    "RELEASES_DIR",
    "GRAFANA_HOME",
    "CERTIFICATES_DIR",
    "OPENAI_API_KEY_FILE",
    "ANTHROPIC_API_KEY_FILE",
)

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*"""
    r"""(?:'(?P<literal>[^']*)'|"(?P<quoted>[^"]*)"|(?P<bare>[^'"\s].*?|))(?:\s+\#.*|\s*)""",
    re.ASCII,
)
_REFERENCE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|([A-Za-z_]\w*))", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """All settings by name; empty ones count as not given."""

    values: Mapping[str, str]

    def get(self, name: str) -> str:
        """The setting, empty where there is none."""
        return self.values.get(name, "")

    def port(self, name: str) -> int:
        """Raises OpsError where the setting is no port number."""
        return ports.number(name, self.values[name])

    def folder(self, name: str) -> Path:
        """A setting of `PATHS`."""
        return Path(self.values[name])

    def environment(self) -> dict[str, str]:
        """This process' environment with every setting in it: for Compose and the load test."""
        return {**os.environ, **self.values}


def load(environment: Mapping[str, str] = os.environ, file: Path = FILE) -> Settings:
    """Raises OpsError where a line of the file is none that sets something."""
    ignored = environment.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true")  # as Compose has it
    from_file = {} if ignored or not file.exists() else parse(file.read_text(), environment, file.name)
    made = {**from_file, **{name: value for name, value in environment.items() if value}}
    values = {**DEFAULTS, **{name: value for name, value in made.items() if value}}
    paths = {name: str(_absolute(name, values[name])) for name in PATHS if name in values}
    return Settings({**values, **paths})


def _absolute(name: str, path: str) -> Path:
    """A path of the settings: `~` is expanded, relative ones start in the project's folder."""
    try:
        return (PROJECT / Path(path).expanduser()).resolve()
    except RuntimeError:
        raise OpsError(f"{name} is '{path}'; there is no such home folder.") from None


def parse(text: str, environment: Mapping[str, str], name: str = ".env") -> dict[str, str]:
    """The settings in a file's text as Compose reads it: quoted, or up to a blank and a #; ${NAME} is filled in.

    Raises OpsError that names file and line.
    """
    values: dict[str, str] = {}

    def reference(match: re.Match[str]) -> str:
        wanted = match[1] or match[3]
        return environment.get(wanted) or values.get(wanted) or match[2] or ""

    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise OpsError(f"{name}, line {number}: write NAME=value, with quotes around both ends or none.")
        literal = found["literal"]
        text_ = found["quoted"] or found["bare"] or ""
        values[found["name"]] = literal if literal is not None else _REFERENCE.sub(reference, text_)
    return values
