"""Checks in Docker mode before anything starts or stops: whether stack, data and ports are this checkout's, and mounts.

Standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path

from ops import mounts, ports, shell
from ops.compose import LOCAL, OVERRIDES, PROJECT_LABEL, SERVICES, Compose, mark
from ops.console import log
from ops.errors import OpsError
from ops.paths import PROJECT, gone
from ops.settings import KEY_FILES, of_compose, of_service

OTHER_NAME = "COMPOSE_PROJECT_NAME=... in .env, and other ports, give this checkout a stack of its own."
PUBLISHED = (  # settings of published ports
    *("APP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT"),
    *("PROMETHEUS_2_PORT", "ALERTMANAGER_2_PORT"),
)


def check(compose: Compose) -> None:
    """Check what a start needs.

    Raises:
        OpsError: a start would fail, or would use data whose passwords are missing.
    """
    warn_of_unused_settings(compose)
    require_targets(compose)
    _require_passwords(compose)
    held = {publisher["PublishedPort"] for one in compose.containers() for publisher in one.get("Publishers") or ()}
    ports.check(published(compose), lambda: held, lambda port: _container_at(compose, port))
    mounts.require_readable(mounted(compose))
    if "name=selinux" in shell.run(["docker", "info", "--format", "{{.SecurityOptions}}"], compose.environment):
        mounts.require_labels(mounted(compose))


def require_targets(compose: Compose) -> None:
    """Check that Prometheus does not scrape a server that an override has turned off.

    Raises:
        OpsError: it does, and `up` would wait for it; has a line for each.
    """
    prometheus = compose.config["services"].get("prometheus", {})
    replaced = {one.get("target", "") for one in prometheus.get("volumes") or ()}
    problems = [
        f"An override turns {name} off, and Prometheus scrapes it; write [] into {file.relative_to(PROJECT)}."
        for name in SERVICES
        if not compose.is_on(name)
        for file in sorted((PROJECT / "prometheus" / "targets").glob("*.yml"))
        if f"/etc/prometheus/targets/{file.name}" not in replaced  # an override has another file in its place
        if re.search(rf"""(?m)^[^#]*["'\s\[,]{name}:\d""", file.read_text())
    ]
    if problems:
        raise OpsError("\n".join(problems))


def require_ownership(compose: Compose) -> None:
    """Refuse to use another stack: its containers would be stopped, its data read, its passwords replaced.

    Raises:
        OpsError: containers of this project's name belong to another checkout, or COMPOSE_FILE to another project.
    """
    files = compose.settings.get("COMPOSE_FILE")
    if files and not (compose.has_server("app") and compose.has_server("prometheus")):
        raise OpsError(f"COMPOSE_FILE is '{files}'; it must begin with this project's docker-compose.yml.")
    label = f"label={PROJECT_LABEL}={compose.project}"
    show = f'{{{{.Label "{PROJECT_LABEL}.working_dir"}}}}'
    command = ["docker", "ps", "--all", "--filter", label, "--format", show]
    folders = {*shell.run(command, compose.environment).splitlines()} - {str(PROJECT), ""}
    if mark(compose.settings).exists():  # this checkout may have been moved, with its mark
        folders = {folder for folder in folders if not gone(Path(folder))}
    if folders:
        raise OpsError(f"Docker has a stack {compose.project} from {', '.join(sorted(folders))}. {OTHER_NAME}")


def _require_passwords(compose: Compose) -> None:
    """Refuse data whose passwords are not here.

    Raises:
        OpsError: there are data of another checkout, or data whose passwords are lost.
    """
    started, volumes = compose.started(), compose.volumes()
    if not volumes:
        return
    data = f"Docker has data of a stack {compose.project} ({', '.join(volumes)})"
    if started and compose.project not in started and not compose.containers():
        raise OpsError(f"{data}, and this checkout has only started {', '.join(started)}. {OTHER_NAME}")
    if not (compose.settings.folder("SECRETS_DIR") / "postgres_password").exists():
        raise OpsError(
            f"{data}, but their passwords are not here. Put its secrets/ back, or `make clean` removes the data."
            f" {OTHER_NAME}"
        )


def warn_of_unused_settings(compose: Compose) -> None:
    """Warn of settings of the service in `.env` that its container does not get."""
    given = compose.config["services"].get("app", {}).get("environment") or {}
    filled_in = of_compose()
    for name in sorted((compose.settings.from_file & {*of_service()}) - filled_in):
        if given.get(name) != compose.settings.get(name):
            file = f"{name}_FILE names a file with it" if f"{name}_FILE" in filled_in else ""
            place = file or f"set it under `environment` of `app` in {OVERRIDES[0]}"
            log.warning(".env: %s has no effect in Docker; %s.", name, place)


def published(compose: Compose) -> dict[str, int]:
    """The ports that will be opened on this machine's 127.0.0.1, by the setting, or a description, of each.

    Where a range or no port is given, Docker takes a free one. Services that `up` does not start do not count.
    """
    settings = {compose.settings.get(name): name for name in PUBLISHED}
    found = {}
    for name, service in compose.config["services"].items():
        for entry in service.get("ports") or () if compose.is_on(name) else ():
            port, tcp = str(entry.get("published", "")), entry.get("protocol", "tcp") == "tcp"
            if port.isdecimal() and tcp and entry.get("host_ip", "") in LOCAL:
                found[settings.pop(port, f"port {port} of {name} in your override")] = int(port)
    return found


def _container_at(compose: Compose, port: int) -> str:
    """The container that publishes this port, and its stack's folder: the operating system only shows the engine."""
    show = f'container {{{{.Names}}}}{{{{with .Label "{PROJECT_LABEL}.working_dir"}}}} of {{{{.}}}}{{{{end}}}}'
    command = ["docker", "ps", "--filter", f"publish={port}", "--format", show]
    return shell.run(command, compose.environment).partition("\n")[0]


def mounted(compose: Compose) -> set[Path]:
    """The files and folders of this project that containers mount; overrides may mount others."""
    services = compose.config["services"].values()
    found = [volume["source"] for service in services for volume in service.get("volumes", ()) if "source" in volume]
    found += [secret["file"] for secret in compose.config.get("secrets", {}).values() if "file" in secret]
    settings = compose.settings
    own = (PROJECT, *map(settings.folder, filter(settings.get, ("SECRETS_DIR", *KEY_FILES))))
    return {path for path in map(Path, found) if any(path.is_relative_to(place) for place in own)}
