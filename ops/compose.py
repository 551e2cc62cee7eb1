"""The stack in Docker: docker-compose.yml by Compose. Standard library only.

Data are copied through containers like the servers' own, with their volumes and no other rights than theirs.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ops import configs, containers, images, mounts, ports, remote_write, shell
from ops.console import log, step
from ops.errors import OpsError
from ops.paths import PROJECT, gone
from ops.rolling import wait_until_active
from ops.settings import KEY_FILES, Settings, of_compose, of_service
from ops.stack import RELOADABLE, State

EVERYTHING = "--profile=*"  # the services of profiles, too
PROJECT_LABEL = "com.docker.compose.project"
PORTS = {"proxy": 8000, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "locust": 8089}  # in the containers
SECOND = "-2"  # the end of the names in docker-compose.ha.yml
DATA = {
    "postgres": "/var/lib/postgresql",
    "prometheus": "/prometheus",
    "alertmanager": "/alertmanager",
    "grafana": "/var/lib/grafana",
}
OTHER_NAME = "COMPOSE_PROJECT_NAME=... in .env, and other ports, give this checkout a stack of its own."
SERVICES = ("app", "proxy", "postgres", "postgres-exporter", "node-exporter", "prometheus", "alertmanager", "grafana")
OPENED = (  # settings of published ports
    *("APP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT"),
    *("PROMETHEUS_2_PORT", "ALERTMANAGER_2_PORT"),
)
HERE = ("", "0.0.0.0", "::", "127.0.0.1")  # noqa: S104  addresses of published ports that localhost leads to
PAGES = {"proxy": "/"}
OVERRIDES = ("docker-compose.override.yml", "docker-compose.override.yaml")  # which Compose reads by itself
REMOTE_WRITE_FILE = "docker-compose.remote-write.yml"
LONGTERM = "victoriametrics"
# PostgreSQL's programs read the password from a private file; it is in no argument and no environment variable.
CLIENT = r"""
umask 077
file=$(mktemp)
trap 'rm -f "$file"' EXIT
trap : INT
sed 's/[:\\]/\\&/g; s/^/*:*:*:postgres:/' /run/secrets/postgres_password > "$file"
PGPASSFILE=$file "$@" --username=postgres --no-password --dbname=sightline
"""


class ComposeStack:
    """See `ops.stack.Stack`."""

    mode = "docker"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.environment = {
            **settings.environment(),
            "EXPORTER_OPTIONS_DIGEST": configs.read_at_start("postgres-exporter"),
            "GRAFANA_PROVISIONING_DIGEST": configs.read_at_start("grafana"),
            "API_KEYS_DIGEST": configs.keys(settings),
            "PROXY_DIGEST": configs.read_at_start("proxy"),
        }
        if remote_write.is_on(settings):
            self.environment |= self._remote_write()
        if settings.has_valkey:
            self.environment |= self._with_profile("valkey")
        if not settings.get("CERTIFICATES_DIR") and (folder := images.certificates()):
            self.environment["CERTIFICATES_DIR"] = str(folder)

    @property
    def longterm(self) -> bool:
        """Whether the stack has a store of its own for years."""
        return bool(self.settings.get(remote_write.RETENTION))

    @property
    def _prometheus_yml(self) -> Path:
        return self.settings.folder("SIGHTLINE_STATE") / "remote-write" / "prometheus.yml"

    @property
    def location(self) -> str:
        known = mark(self.settings).exists() and self.project in (self._started() or [self.project])
        started = "" if known else ", which has not started it so far"
        return (
            f"Docker's volumes {', '.join(self.volumes()) or '(none)'} (project {self.project} of {PROJECT}{started})"
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """docker-compose.yml and all that Compose adds to it, settings filled in, services of profiles included."""
        complete: dict[str, Any] = json.loads(self.compose(EVERYTHING, "config", "--format=json"))
        return complete

    @property
    def project(self) -> str:
        return str(self.config["name"])

    def published(self) -> dict[str, int]:
        """The ports that will be opened at this machine's 127.0.0.1, after the setting, or in words the place, of each.

        Of a range, or where none is named, Docker takes one that is free. Services of profiles are started apart.
        """
        settings = {self.settings.get(name): name for name in OPENED}
        found = {}
        for name, service in self.config["services"].items():
            for entry in service.get("ports") or () if self._is_on(service) else ():
                port, tcp = str(entry.get("published", "")), entry.get("protocol", "tcp") == "tcp"
                if port.isdecimal() and tcp and entry.get("host_ip", "") in HERE:
                    found[settings.pop(port, f"port {port} of {name} in your override")] = int(port)
        return found

    def _is_on(self, service: Mapping[str, Any]) -> bool:
        """Whether `up` starts a service; not where its profile is off, or an override has none of it."""
        active = {*self.environment.get("COMPOSE_PROFILES", "").split(",")}
        profiles = service.get("profiles")
        number = service.get("scale", (service.get("deploy") or {}).get("replicas", 1))
        return number != 0 and (not profiles or bool(active & {*profiles, "*"}))

    def page(self, container: Mapping[str, Any]) -> str:
        """Where a browser finds the server in a container, from what Compose says of it; empty where it can't."""
        server = container["Service"]
        for one in container.get("Publishers") or ():
            if one["PublishedPort"] and one["TargetPort"] == PORTS.get(server.removesuffix(SECOND)):
                host = "localhost" if one["URL"] in HERE else one["URL"]
                return f"http://{host}:{one['PublishedPort']}{PAGES.get(server, '')}"
        return ""

    # Starting and stopping

    def check(self) -> None:
        self.write_configs()
        self._name_what_has_no_effect()
        self._require_targets()
        self._require_passwords()
        held = {publisher["PublishedPort"] for one in self.containers() for publisher in one.get("Publishers") or ()}
        ports.check(self.published(), lambda: held, self._container_at)
        mounts.require_readable(self.mounted())
        if "name=selinux" in self._security:
            mounts.require_labels(self.mounted())
        self.pull_missing()

    def _require_targets(self) -> None:
        """Check that Prometheus is not to scrape what an override has turned off.

        Raises:
            OpsError: it is, and `up` would wait for it; has a line for each.
        """
        services = self.config["services"]
        off = [name for name in SERVICES if not (name in services and self._is_on(services[name]))]
        problems = [
            f"An override turns {name} off, and Prometheus scrapes it; write [] into {file.relative_to(PROJECT)}."
            for name in off
            for file in sorted((PROJECT / "prometheus" / "targets").glob("*.yml"))
            if re.search(rf"""(?m)^[^#]*["'\s]{name}:\d""", file.read_text())
        ]
        if problems:
            raise OpsError("\n".join(problems))

    def require_ownership(self) -> None:
        """Refuse to touch another stack: its containers would be stopped, its data read, its passwords replaced.

        Raises:
            OpsError: containers of this project's name belong to another checkout, or COMPOSE_FILE to another project.
        """
        files = self.settings.get("COMPOSE_FILE")
        if files and not {"app", "prometheus"} <= self.config["services"].keys():
            raise OpsError(f"COMPOSE_FILE is '{files}'; it must begin with this project's docker-compose.yml.")
        label = f"label={PROJECT_LABEL}={self.project}"
        show = f'{{{{.Label "{PROJECT_LABEL}.working_dir"}}}}'
        command = ["docker", "ps", "--all", "--filter", label, "--format", show]
        folders = {*shell.run(command, self.environment).splitlines()} - {str(PROJECT), ""}
        if mark(self.settings).exists():  # it came along, where this folder was moved
            folders = {folder for folder in folders if not gone(Path(folder))}
        if folders:
            raise OpsError(f"Docker has a stack {self.project} from {', '.join(sorted(folders))}. {OTHER_NAME}")

    def _name_what_has_no_effect(self) -> None:
        """Warn of settings of the service in `.env` that its container is not given."""
        given = self.config["services"].get("app", {}).get("environment") or {}
        filled_in = of_compose()
        for name in sorted((self.settings.from_file & {*of_service()}) - filled_in):
            if given.get(name) != self.settings.get(name):
                file = f"{name}_FILE names a file with it" if f"{name}_FILE" in filled_in else ""
                place = file or f"`environment` of `app` in {OVERRIDES[0]} has one"
                log.warning(".env: %s has no effect in Docker; %s.", name, place)

    def _started(self) -> list[str]:
        """The project names of the stacks that this checkout has started; none in a mark of former times."""
        file = mark(self.settings)
        return file.read_text().split() if file.exists() else []

    def _container_at(self, port: int) -> str:
        """Which container has published this port, and the folder of its stack; the port's process is the engine's."""
        show = f'container {{{{.Names}}}}{{{{with .Label "{PROJECT_LABEL}.working_dir"}}}} of {{{{.}}}}{{{{end}}}}'
        command = ["docker", "ps", "--filter", f"publish={port}", "--format", show]
        return shell.run(command, self.environment).partition("\n")[0]

    def _require_passwords(self) -> None:
        """Refuse data whose passwords are not here.

        Raises:
            OpsError: there are data that another checkout, or lost passwords, belong to.
        """
        started = self._started()
        if started and self.project not in started and not self.containers() and self.has_data():
            raise OpsError(
                f"Docker has data of a stack {self.project} ({', '.join(self.volumes())}), and this checkout has only"
                f" started {', '.join(started)}. {OTHER_NAME}"
            )
        if not (self.settings.folder("SECRETS_DIR") / "postgres_password").exists() and self.has_data():
            raise OpsError(
                f"Docker has data of a stack {self.project} ({', '.join(self.volumes())}), but their passwords are not"
                f" here. Put its secrets/ back, or `make clean` removes the data. {OTHER_NAME}"
            )

    def start(self) -> bool:
        running = self.running()
        names = sorted({self.project, *self._started()})
        mark(self.settings).write_text("".join(f"{name}\n" for name in names))
        with step("Building the service's image"):
            self.compose("build", "--quiet")
        with step("Starting the services"):
            if LONGTERM in running and not self.longterm:
                self.compose(EVERYTHING, "rm", "--stop", "--force", LONGTERM)
            self._up()
        return running.issuperset(RELOADABLE)

    def _up(self) -> None:
        try:
            self.compose("up", "--detach", "--no-build")
        except OpsError as error:  # of a server that others wait for Compose says no more than that it is unhealthy
            named = re.search(rf"container {re.escape(self.project)}-([\w-]+)-\d+ is unhealthy", str(error))
            if named is None:
                raise
            log_end = "\n".join(f"  {line}" for line in self.last_words(named[1]).splitlines())
            raise OpsError(f"{error}\nThe end of its log:\n{log_end}") from None

    def write_configs(self) -> None:
        if remote_write.is_on(self.settings):
            self._prometheus_yml.parent.mkdir(parents=True, exist_ok=True)
            remote_write.write(self._prometheus_yml, self.settings, f"http://{LONGTERM}:8428")

    def _remote_write(self) -> dict[str, str]:
        """Variables: docker-compose.remote-write.yml goes to Compose's files, our own store to its profiles."""
        separator = self.environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = self.environment.get("COMPOSE_FILE") or separator.join(
            ["docker-compose.yml", *[name for name in OVERRIDES if (PROJECT / name).exists()][:1]]
        )
        made = {
            "COMPOSE_FILE": separator.join([files, REMOTE_WRITE_FILE]),
            "REMOTE_WRITE_CONFIG": str(self._prometheus_yml),
            **remote_write.grafana(self.settings),
        }
        if self.settings.get(remote_write.URL):
            made["REMOTE_WRITE_NETWORK"] = "outside"
        if self.longterm:
            made |= self._with_profile("longterm")
        return made

    def _with_profile(self, name: str) -> dict[str, str]:
        """Variables: the services of a profile run as well."""
        return {"COMPOSE_PROFILES": ",".join(filter(None, [self.environment.get("COMPOSE_PROFILES"), name]))}

    @cached_property
    def _security(self) -> str:
        """The engine's security options."""
        return shell.run(["docker", "info", "--format", "{{.SecurityOptions}}"], self.environment)

    def replicas(self) -> list[str]:
        names = [one["Name"] for one in self.containers() if one["Service"] == "app" and one["State"] == "running"]
        if names:
            with step("Building the service's image"):
                self.compose("build", "--quiet", "app")
        return sorted(names)

    def replace_replica(self, name: str) -> None:
        """The new one is ready before the old one drains, so that a single one can be replaced, too."""
        before = set(self.compose("ps", "--quiet", "app").split())
        more = f"--scale=app={len(before) + 1}"
        try:
            # Not with --no-deps: a container made by it looks changed to the next `up`, which replaces it.
            self.compose("up", "--detach", "--no-build", "--no-recreate", more, "--wait", "app")
            wait_until_active(self, len(before) + 1)
        except OpsError:
            for new in {*self.compose("ps", "--all", "--quiet", "app").split()} - before:
                shell.run(["docker", "rm", "--force", new], self.environment)
            raise
        shell.run(["docker", "stop", name], self.environment)
        shell.run(["docker", "rm", name], self.environment)

    def stop(self) -> bool:
        found = bool(self.containers())
        self.compose(EVERYTHING, "down", "--remove-orphans")
        return found

    def remove(self) -> None:
        self.compose(EVERYTHING, "down", "--remove-orphans", "--volumes", "--rmi=local")
        if names := [name for name in self._started() if name != self.project]:
            mark(self.settings).write_text("".join(f"{name}\n" for name in names))
        else:
            mark(self.settings).unlink(missing_ok=True)

    # Looking

    def states(self) -> list[State]:
        found = self.containers()
        runs = containers.runs(found, self.environment)
        replicas = Counter(one["Service"] for one in found)
        return [
            State(
                one["Service"] if replicas[one["Service"]] == 1 else one["Name"].removeprefix(f"{self.project}-"),
                one["Status"],
                containers.problem(one, runs.get(one["ID"]), ours=one["Service"] in SERVICES),
                self.page(one),
                one["State"] != "running",
            )
            for one in found
        ]

    def notes(self) -> list[str]:
        if remote_write.is_on(self.settings) and self._has(f"prometheus{SECOND}"):
            return ["The first Prometheus alone sends samples to the store, which gets none while that one is down."]
        return []

    def last_words(self, server: str) -> str:
        return self.compose("logs", "--no-color", "--tail=5", server)

    def log_command(self, server: str, lines: int | None, follow: bool) -> list[str]:
        options = [f"--tail={'all' if lines is None else lines}", *(["--follow"] if follow else [])]
        return ["docker", "compose", EVERYTHING, "logs", *options, *([server] if server else [])]

    def containers(self) -> list[dict[str, Any]]:
        """What Compose says of each container, running or not."""
        return [json.loads(line) for line in self.compose(EVERYTHING, "ps", "--all", "--format=json").splitlines()]

    def running(self) -> set[str]:
        """The services of which a container runs."""
        return {container["Service"] for container in self.containers() if container["State"] == "running"}

    # Single servers

    def stop_server(self, name: str) -> None:
        self.compose("stop", name)

    def start_server(self, name: str) -> None:
        self.compose("start", name)

    def pids(self, name: str) -> list[int]:
        containers = self.compose("ps", "--quiet", name).split()
        inspect = ["docker", "inspect", "--format", "{{.State.Pid}}"]
        return [int(shell.run([*inspect, container], self.environment)) for container in containers]

    def reloadable(self) -> list[str]:
        seconds = {f"{name}{SECOND}" for name in RELOADABLE}
        return [*RELOADABLE, *sorted(seconds & self.running())]

    def hang_up(self, name: str) -> None:
        # Docker takes its own `kill` for the end, and would not start a server again that dies later.
        self.compose("exec", "-T", name, "kill", "-HUP", "1")

    def ask(self, name: str, path: str) -> str:
        """What a server answers; asked from inside, as its port may be closed to the host."""
        port = 8404 if name == "proxy" else PORTS[name.removesuffix(SECOND)]
        url = f"http://127.0.0.1:{port}{path}"
        return self.compose("exec", "-T", name, "wget", "-q", "-Y", "off", "-O", "-", url)

    def compose(self, *arguments: str) -> str:
        """What `docker compose` prints.

        Raises:
            OpsError: it fails; with its complaint.
        """
        return shell.run(["docker", "compose", *arguments], self.environment, cwd=PROJECT)

    def client(self, program: str, *options: str, terminal: bool = False) -> list[str]:
        pipe = [] if terminal else ["-T"]
        return ["docker", "compose", "exec", *pipe, "postgres", "sh", "-ec", CLIENT, "sh", program, *options]

    def tool(self, server: str, program: str, *arguments: str) -> list[str]:
        place = ["--rm", "--network=none", f"--volume={PROJECT / server}:/check:ro", "--workdir=/check"]
        return ["docker", "run", *place, f"--entrypoint={program}", images.upstream()[server], *arguments]

    def grafana_cli(self, *arguments: str) -> tuple[list[str], Mapping[str, str]]:
        cli = ["docker", "compose", "exec", "-T", "grafana", "grafana", "cli", "--homepath", "/usr/share/grafana"]
        return [*cli, *arguments], self.environment

    def pull_missing(self, load_test: bool = False) -> None:
        """Pull missing upstream images, of those in use.

        Raises:
            OpsError: an image is not available.
        """
        unused = {"locust"} if not load_test else set()
        unused |= {LONGTERM} if not self.longterm else set()
        unused |= {"valkey"} if not self.settings.has_valkey else set()

        def missing() -> list[str]:
            found = images.missing(self.environment)
            return [image for name, image in found.items() if name not in unused]

        reason = images.pull(missing(), self.environment)
        if reason:
            raise OpsError(
                f"These images can't be pulled: {', '.join(missing())}\n{reason}\n"
                "No registry in reach? `make standins` builds stand-ins from Debian packages; then `make up` again."
            )

    def fetch(self) -> None:
        """Pull the upstream images that the engine has: what a tag names changes when its base gets fixes."""
        missing = images.missing(self.environment)
        present = [image for name, image in images.upstream().items() if name not in missing]
        if reason := images.pull(present, self.environment):
            raise OpsError(reason)

    # Backups

    def versions(self) -> dict[str, str]:
        self.pull_missing()
        references = images.upstream()
        ask = ["docker", "run", "--rm", "--network=none"]
        said = {
            name: shell.run([*ask, f"--entrypoint={name}", references[name], "--version"], self.environment)
            for name in ("prometheus", "alertmanager", "postgres")
        }
        return {name: shell.version(text) for name, text in said.items()}

    def has_data(self) -> bool:
        return bool(self.volumes())

    def volumes(self) -> list[str]:
        label = f"label={PROJECT_LABEL}={self.project}"
        return shell.run(["docker", "volume", "ls", "--quiet", "--filter", label], self.environment).split()

    @contextmanager
    def paused(self, servers: Sequence[str]) -> Iterator[None]:
        running = [name for name in servers if name in self.running()]
        try:
            if running:
                self.compose("stop", *running)
            yield
        finally:
            if running:
                self.compose("up", "--detach", "--no-build", "--no-recreate", "--wait", *running)

    @contextmanager
    def new_database(self) -> Iterator[Callable[..., list[str]]]:
        self.compose(*_alone("postgres", "sh"), "-ec", _empty("postgres"))
        self.compose("up", "--detach", "--wait", "postgres")
        yield self.client

    def pack(self, server: str, file: Path) -> None:
        if not self._has(server):
            tarfile.open(file, "w").close()
            return
        command = ["docker", "compose", *_alone(server, "tar"), "-C", DATA[server], "-cf", "-", "."]
        shell.to_file(f"Copying {server}", command, file, self.environment, PROJECT)

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        if not self._has(server):
            log.info("  left out: an override of yours has removed %s", server)
            return
        if self._is_empty(tar):
            log.info("  left as it is: the archive has no data of %s", server)
            return
        command = ["docker", "compose", *_alone(server, "sh"), "-ec", f"{_empty(server)}; exec tar -xf -"]
        shell.feed(f"Restoring {server}", command, tar, self.environment, PROJECT)

    @staticmethod
    def _is_empty(tar: IO[bytes]) -> bool:
        """Whether it is what `pack` makes of a server that an override has removed."""
        with tarfile.open(fileobj=tar) as packed:
            empty = packed.next() is None
        tar.seek(0)
        return empty

    def _has(self, server: str) -> bool:
        """Whether no override has removed it, as where Grafana is another one."""
        return server in self.config["services"]

    def replace(self) -> None:
        """Volumes can't be renamed: everything is in its place already."""

    def recover(self) -> bool:
        return False

    def mounted(self) -> set[Path]:
        """The files and folders of ours that containers get to read: what else overrides mount is not our affair."""
        services = self.config["services"].values()
        found = [
            volume["source"] for service in services for volume in service.get("volumes", ()) if "source" in volume
        ]
        found += [secret["file"] for secret in self.config.get("secrets", {}).values() if "file" in secret]
        own = (PROJECT, *map(self.settings.folder, filter(self.settings.get, ("SECRETS_DIR", *KEY_FILES))))
        return {path for path in map(Path, found) if any(path.is_relative_to(place) for place in own)}


def mark(settings: Settings) -> Path:
    """The file that is there while Docker may have data of this checkout; it lists the project names of its stacks."""
    return settings.folder("SIGHTLINE_STATE") / "in-docker"


def _alone(server: str, program: str) -> list[str]:
    """Arguments of Compose that run `program` in a container like the server's own, and with its volume."""
    return ["run", "--rm", "-T", "--no-deps", f"--entrypoint={program}", server]


def _empty(server: str) -> str:
    """Shell commands that remove all that the server has; the shell is in its folder then."""
    return f"cd {DATA[server]}; rm -rf ./* ./.[!.]* ./..?*"
