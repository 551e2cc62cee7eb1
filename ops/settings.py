"""Settings: the environment's, then those of `.env`, then the defaults; read once, the same in both modes.

Standard library only: Docker mode works before anything is installed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ops import dotenv, ports, secrets
from ops.console import log
from ops.errors import OpsError
from ops.paths import HOME, PROJECT

FILE = PROJECT / ".env"
DEFAULTS = {
    "APP_PORT": "8000",
    "PROMETHEUS_PORT": "9090",
    "ALERTMANAGER_PORT": "9093",
    "PROMETHEUS_2_PORT": "9091",
    "ALERTMANAGER_2_PORT": "9095",
    "GRAFANA_PORT": "3000",
    "LOCUST_PORT": "8089",
    "POSTGRES_PORT": "5432",
    "NODE_EXPORTER_PORT": "9100",
    "POSTGRES_EXPORTER_PORT": "9187",
    "LOCUST_METRICS_PORT": "9646",
    "LONGTERM_PORT": "8428",
    "VALKEY_PORT": "6379",
    "APP_REPLICA_PORT": "8101",
    "PROXY_METRICS_PORT": "8404",
    "APP_REPLICAS": "1",
    "APP_WORKERS": "2",
    "DATABASE_POOL_SIZE": "5",
    "DATABASE_MAX_OVERFLOW": "5",
    "SIGHTLINE_STATE": str(HOME),
    "SECRETS_DIR": str(PROJECT / "secrets"),
    "BACKUPS_DIR": str(PROJECT / "backups"),
    "RELEASES_DIR": str(HOME / "archives"),
}
KEY_FILES = ("OPENAI_API_KEY_FILE", "ANTHROPIC_API_KEY_FILE")
PATHS = (
    "SIGHTLINE_STATE",
    "SECRETS_DIR",
    "BACKUPS_DIR",
    "RELEASES_DIR",
    "GRAFANA_HOME",
    "CERTIFICATES_DIR",
    *KEY_FILES,
)
# Folders that the stack closes to others, fills and empties -> files in one that is in use.
OWN = {
    "SECRETS_DIR": secrets.NAMES,
    "SIGHTLINE_STATE": ("lock", "in-docker", "run/supervisord.conf", "data/postgres/PG_VERSION"),
}
MODES = ("docker", "native")
DATA_FOLDERS = ("data", "run", "logs", "longterm")  # of native mode, in SIGHTLINE_STATE: `make clean` removes them
REMOTE_WRITE_FOLDER = "remote-write"  # likewise in SIGHTLINE_STATE: `make up` writes it in Docker mode
LINKS = ("GRAFANA_URL", "PROMETHEUS_URL", "ALERTMANAGER_URL", "RUNBOOKS_URL")  # where links in messages lead
# Settings that are inserted into command lines and files unquoted, so their format is checked.
_ADDRESS = (
    r"https?://([^\s/?#@:%$<>\[\]\"'\\^`{|}]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/([\w.~!&()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?",
    "an address such as https://grafana.example",
)
VALUES = {  # setting -> what it must match, and that in words
    "SIGHTLINE_MODE": ("|".join(MODES), " or ".join(MODES)),
    "APP_REPLICAS": (r"[1-9]|1\d|2\d|3[01]", "a number from 1 to 31"),
    "APP_WORKERS": (r"[1-9]|[1-5]\d|6[0-4]", "a number from 1 to 64"),
    "APP_SIGN_UPS_PER_MINUTE": (r"\d{1,9}", "a number, 0 for no limit"),
    "ACTIVE_USERS_STORE": (r"rediss?://[^\s@]+", "an address without a password, such as redis://valkey:6379"),
    "LOG_LEVEL": ("debug|info|warning|error", "debug, info, warning or error"),
    "DATABASE_POOL_SIZE": (r"[1-9]\d{0,2}|1000", "a number from 1 to 1000"),
    "DATABASE_MAX_OVERFLOW": (r"\d{1,3}|1000", "a number from 0 to 1000"),
    "LOG_FORMAT": ("plain|json", "plain or json"),
    "LLM_PROVIDER": ("auto|simulated|openai|anthropic", "auto, simulated, openai or anthropic"),
    "OPENAI_BASE_URL": ("https?://.+", "an address such as https://api.example/v1"),
    "ANTHROPIC_BASE_URL": ("https?://.+", "an address such as https://api.example"),
    **dict.fromkeys(LINKS, _ADDRESS),
    "LONGTERM_RETENTION": (r"[1-9]\d{0,3}d|[1-9]\d{0,2}w|[1-9]\d?y", "a duration such as 5y or 400d"),
    "REMOTE_WRITE_URL": (_ADDRESS[0], "an address such as https://metrics.example/api/v1/write"),
    "REMOTE_WRITE_TENANT": (r"[\w!.*'()|-]+", "a name of letters and digits"),
    "TRACE_URL": ("https?://.+", "an address such as https://jaeger.example/trace/"),
    "FAULTS_ENABLED": ("(?i:true|false|1|0|yes|no|on|off)", "true or false"),
    # Prometheus counts nanoseconds, which end after 292 years: longer than any one of these numbers, not than all of
    # them together, which only Prometheus refuses. Of the sizes, a few bytes hold nothing.
    "PROMETHEUS_RETENTION_TIME": (
        r"(?=.)(\d{1,2}y)?(\d{1,4}w)?(\d{1,5}d)?(\d{1,6}h)?(\d{1,7}m)?(\d{1,9}s)?(\d{1,9}ms)?",  # in this order
        "a duration such as 32d or 12h",
    ),
    "PROMETHEUS_RETENTION_SIZE": (r"[1-9]\d{0,5}[MGT]B|0B", "a size such as 5GB or 500MB, 0B for no limit"),
    "RELEASES_MIRROR": (_ADDRESS[0], "an address such as https://mirror.example/sightline"),
    "PIP_INDEX_URL": ("https?://.+", "an address such as https://packages.example/simple"),
    "COMPOSE_DISABLE_ENV_FILE": ("(?i:true|false|t|f)|0|1", "true or false"),
    "COMPOSE_PROJECT_NAME": ("[a-z0-9][a-z0-9_-]*", "a name of lower-case letters, digits, - and _"),
}
OTHERS = ("LLM_MODEL", "LLM_MODELS", "IMAGE_REGISTRY")
CONNECTIONS = 97  # PostgreSQL's default, 100, without those for its superuser
FOREIGN = re.compile(r"COMPOSE_|DOCKER_|BUILDKIT_|BUILDX_|.*_proxy$", re.IGNORECASE)  # of Compose, or of other programs


@dataclass(frozen=True)
class Settings:
    """All settings by name; empty ones count as not given."""

    values: Mapping[str, str]
    from_file: frozenset[str] = frozenset()
    """Names that `.env` sets."""
    doubled: tuple[str, ...] = ()
    """Those of them that it sets more than once."""

    def get(self, name: str) -> str:
        """The setting, empty where there is none."""
        return self.values.get(name, "")

    def port(self, name: str) -> int:
        """The port that the setting `name` holds.

        Raises:
            OpsError: the setting is no port number.
        """
        return ports.number(name, self.values[name])

    @property
    def replicas(self) -> int:
        """How many replicas the service has.

        Raises:
            OpsError: the setting is no such number.
        """
        if problem := self._problem("APP_REPLICAS"):
            raise OpsError(problem)
        return int(self.get("APP_REPLICAS"))

    @property
    def has_valkey(self) -> bool:
        """Whether the stack's own Valkey counts active users."""
        return bool(re.match(r"rediss?://valkey[:/]", self.get("ACTIVE_USERS_STORE") + "/"))

    def folder(self, name: str) -> Path:
        """A setting of `PATHS`."""
        return Path(self.values[name])

    def environment(self) -> dict[str, str]:
        """This process' environment with every setting in it: for Compose and the load test.

        Empty variables of Compose's count as not given, as all others: it takes some for wrong values.
        """
        inherited = {name: value for name, value in os.environ.items() if value or not name.startswith("COMPOSE_")}
        return {**inherited, **self.values}

    def check(self) -> None:
        """Check every setting.

        Raises:
            OpsError: settings can't work, or names in `.env` are none; it has a line for each.
        """
        problems = [f".env: {reason}" for reason in self._not_settings() if "do you mean" in reason]
        problems += [problem for name in VALUES if (problem := self._problem(name))]
        for name in DEFAULTS:
            if name.endswith("_PORT"):
                try:
                    self.port(name)
                except OpsError as error:
                    problems.append(str(error))
        if not problems:
            replicas = self.replicas
            if (last := self.port("APP_REPLICA_PORT") + replicas - 1) > 65535:
                problems.append(f"APP_REPLICA_PORT is too high for {replicas} replicas: the last has {last}.")
        for name in (*KEY_FILES, "GRAFANA_HOME", "CERTIFICATES_DIR"):
            kind = "file" if name in KEY_FILES else "folder"
            path = Path(self.get(name))
            if self.get(name) and (not path.exists() or path.is_dir() != (kind == "folder")):
                problems.append(f"{self._named(name)} is '{path}'; there is no such {kind}.")
            elif name == "GRAFANA_HOME" and self.get(name) and not (path / "bin" / "grafana").exists():
                problems.append(f"{self._named(name)} is '{path}', which has no bin/grafana; name an unpacked release.")
        if problems:
            raise OpsError("\n".join(problems))

    def warn(self) -> None:
        """Warn of settings that pass `check`, but are probably not intended."""
        for name in self.doubled:
            log.warning(".env: %s is set more than once; the last line counts.", name)
        for reason in self._not_settings():
            log.warning(".env: %s", reason)
        pool = int(self.get("DATABASE_POOL_SIZE")) + int(self.get("DATABASE_MAX_OVERFLOW"))
        connections = self.replicas * int(self.get("APP_WORKERS")) * pool
        if connections > CONNECTIONS:
            log.warning(
                "The service may open %d connections, and PostgreSQL takes %d by default: lower APP_REPLICAS,"
                " APP_WORKERS, DATABASE_POOL_SIZE or DATABASE_MAX_OVERFLOW.",
                connections,
                CONNECTIONS,
            )

    def _not_settings(self) -> list[str]:
        """A sentence for each name in `.env` that is not a setting."""
        return [reason for name in sorted(self.from_file) if (reason := unknown(name))]

    def _problem(self, name: str) -> str:
        """A sentence if a setting of `VALUES` is not what it must be."""
        pattern, words = VALUES[name]
        value = self.get(name)
        if not value or re.fullmatch(pattern, value, re.ASCII):
            return ""
        shown = re.sub(r"://[^/@\s]*@", "://...@", value)  # without a password
        return f"{self._named(name)} is '{shown}'; it must be {words}."

    def _named(self, name: str) -> str:
        return f"{name} in .env" if name in self.from_file and name not in os.environ else name


def load(environment: Mapping[str, str] = os.environ, file: Path = FILE) -> Settings:
    """The settings of the environment, of `.env`, and the defaults, in this order.

    Raises:
        OpsError: a line sets nothing.
    """
    ignored = environment.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "t", "true")  # as Compose has it
    from_file, doubled = dotenv.read(file, environment) if file.exists() and not ignored else ({}, ())
    made = dict(from_file)
    for name, value in environment.items():
        if name in DEFAULTS and name.endswith("_PORT") and "://" in value:
            log.warning("%s=%s is set by Kubernetes, not by you: ignored.", name, value)
        elif value:
            made[name] = value.strip() if name in DEFAULTS or name in VALUES else value
    values = {**DEFAULTS, **{name: value for name, value in made.items() if value}}
    paths = {name: str(_absolute(name, values[name], environment)) for name in PATHS if name in values}
    links = {name: values[name].rstrip("/") for name in LINKS if name in values}
    _keep_apart({name: Path(path) for name, path in paths.items()})
    return Settings({**values, **paths, **links}, frozenset(from_file), doubled)


def _keep_apart(places: Mapping[str, Path]) -> None:
    """Check that no folder is also used by another setting with different permissions, or emptied by the stack.

    Raises:
        OpsError: one is.
    """
    state, passwords = places["SIGHTLINE_STATE"], places["SECRETS_DIR"]
    if state.is_relative_to(passwords):  # others have to get into the one, and must not into the other
        raise OpsError(f"SIGHTLINE_STATE is '{state}', in SECRETS_DIR, '{passwords}'; keep them apart.")
    for name, place in places.items():
        inside = place.relative_to(state).parts if place.is_relative_to(state) else ()
        if inside and inside[0].split(".")[0] in (*DATA_FOLDERS, REMOTE_WRITE_FOLDER):
            raise OpsError(f"{name} is '{place}', in a folder that the stack empties; choose another one.")


def of_service() -> list[str]:
    """The names of the service's settings; read, as importing them needs packages and takes longer than a command."""
    source = (PROJECT / "app" / "settings.py").read_text()
    return [field.upper() for field in re.findall(r"^    (\w+): ", source, re.MULTILINE)]


def of_compose() -> set[str]:
    """The variables that Compose's files fill in."""
    files = PROJECT.glob("*compose*.y*ml")
    return {name for file in files for name in re.findall(r"\$\{?(\w+)", file.read_text())}


def unknown(name: str, parameters: Collection[str] = ()) -> str | None:
    """Why this is not a setting, None if it is one: of the stack, the service, Compose or an override of the user's.

    `parameters`: further names that may be meant.
    """
    known = {*DEFAULTS, *PATHS, *VALUES, *OTHERS, *of_service(), *of_compose()}
    if name in known or FOREIGN.match(name):
        return None
    near = nearest(name, parameters) or nearest(name, known, 0.8)
    return f"{name} is not a setting{near}" + ("" if near else ", and has no effect here.")


def nearest(name: str, names: Collection[str], similar: float = 0.7) -> str:
    """The end of a sentence: which of `names` may be meant; empty where none is as `similar`, from 0 to 1."""
    near = difflib.get_close_matches(name.upper(), names, 1, similar)
    return f"; do you mean {near[0]}?" if near else ""


def _absolute(name: str, path: str, environment: Mapping[str, str]) -> Path:
    """A path of the settings.

    Raises:
        OpsError: it is unusable, or the folder is none that the stack can have.
    """
    place = expanded(name, path, environment)
    if place.exists() and not place.is_dir() and name not in KEY_FILES:
        raise OpsError(f"{name} is '{place}', which is not a folder.")
    if name in OWN and str(place) != DEFAULTS[name]:
        made = {*secrets.FOLDERS} if name == "SECRETS_DIR" else set()  # before the first file
        others = {entry.name for entry in place.iterdir()} - made if place.is_dir() else set()
        foreign = others and not any((place / mark).is_file() for mark in OWN[name])
        if foreign or PROJECT.is_relative_to(place):
            raise OpsError(f"{name} is '{place}', which contains other files; choose a new or empty folder.")
    return place


def expanded(name: str, path: str, environment: Mapping[str, str] = os.environ) -> Path:
    """A path of a setting or parameter: `~` and $NAME are expanded, relative paths start in the project's folder.

    Raises:
        OpsError: a home folder or a variable is unknown, or it is no path of this system.
    """
    if "\\" in path or "://" in path:
        raise OpsError(
            f"{name} is '{path}'; write the path as Linux does, such as /srv/sightline or, in WSL, /mnt/c/x."
        )
    for found in dotenv.REFERENCE.finditer(path):  # as cron, systemd and single quotes leave them
        if not environment.get(variable := found["braced"] or found["bare"] or "$"):
            raise OpsError(f"{name} is '{path}'; {variable} is not set.")
    try:
        return (PROJECT / Path(dotenv.fill(path.strip(), environment)).expanduser()).resolve()
    except RuntimeError:
        raise OpsError(f"{name} is '{path}'; there is no such home folder.") from None
