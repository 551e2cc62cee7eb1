"""The stack in Docker, as `ops.stack.Stack` describes it. Standard library only.

Data are copied by containers like the servers' own, with the same volumes and no further privileges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops import containers, images, preflight, remote_write, shell
from ops.compose import ALL_PROFILES, LONGTERM, PORTS, SECOND, SERVICES, Compose, mark
from ops.console import step
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.rolling import wait_until_active
from ops.stack import RELOADABLE, State

DATA = {
    "postgres": "/var/lib/postgresql",
    "prometheus": "/prometheus",
    "alertmanager": "/alertmanager",
    "grafana": "/var/lib/grafana",
}
# PostgreSQL's programs read the password from a private file; it is in no argument and no environment variable.
CLIENT = r"""
umask 077
file=$(mktemp)
trap 'rm -f "$file"' EXIT
trap : INT
sed 's/[:\\]/\\&/g; s/^/*:*:*:postgres:/' /run/secrets/postgres_password > "$file"
PGPASSFILE=$file "$@" --username=postgres --no-password --dbname=sightline
"""


class ComposeStack(Compose):
    """See `ops.stack.Stack`."""

    mode = "docker"

    @property
    def location(self) -> str:
        known = mark(self.settings).exists() and self.project in (self.started() or [self.project])
        note = "" if known else ", which has not started it so far"
        return f"Docker's volumes {', '.join(self.volumes()) or '(none)'} (project {self.project} of {PROJECT}{note})"

    # Starting and stopping

    def check(self) -> None:
        self.write_configs()
        preflight.check(self)
        self.pull_missing()

    def start(self) -> bool:
        running = self.running()
        self.remember({self.project, *self.started()})
        with step("Building the service's image"):
            self.compose("build", "--quiet")
        with step("Starting the services"):
            if LONGTERM in running and not self.longterm:
                self.compose(ALL_PROFILES, "rm", "--stop", "--force", LONGTERM)
            self._up()
        return running.issuperset(self._first_reloadable())

    def _up(self) -> None:
        try:
            self.compose("up", "--detach", "--no-build")
        except OpsError as error:  # Compose reports no more than "unhealthy" of a server that others depend on
            named = re.search(rf"container {re.escape(self.project)}-([\w-]+)-\d+ is unhealthy", str(error))
            if named is None:
                raise
            log_end = "\n".join(f"  {line}" for line in self.last_words(named[1]).splitlines())
            raise OpsError(f"{error}\nThe end of its log:\n{log_end}") from None

    def write_configs(self) -> None:
        if remote_write.is_on(self.settings):
            self.prometheus_yml.parent.mkdir(parents=True, exist_ok=True)
            remote_write.write(self.prometheus_yml, self.settings, f"http://{LONGTERM}:8428")

    def replicas(self) -> list[str]:
        names = [one["Name"] for one in self.containers() if one["Service"] == "app" and one["State"] == "running"]
        if names:
            with step("Building the service's image"):
                self.compose("build", "--quiet", "app")
        return sorted(names)

    def replace_replica(self, name: str) -> None:
        """The new replica is ready before the old one drains, so that a single replica can be replaced, too."""
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
        self.compose(ALL_PROFILES, "down", "--remove-orphans")
        return found

    def remove(self) -> None:
        self.compose(ALL_PROFILES, "down", "--remove-orphans", "--volumes", "--rmi=local")
        if others := self.volumes():  # of a file that COMPOSE_FILE no longer names, such as docker-compose.ha.yml
            shell.run(["docker", "volume", "rm", *others], self.environment)
        self.remember({*self.started()} - {self.project})

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
        if remote_write.is_on(self.settings) and self.has_server(f"prometheus{SECOND}"):
            return ["The first Prometheus alone sends samples to the store, which gets none while that one is down."]
        return []

    def last_words(self, server: str) -> str:
        return self.compose("logs", "--no-color", "--tail=5", self._service(server))

    def log_command(self, server: str, lines: int | None, follow: bool) -> list[str]:
        options = [f"--tail={'all' if lines is None else lines}", *(["--follow"] if follow else [])]
        return ["docker", "compose", ALL_PROFILES, "logs", *options, *([self._service(server)] if server else [])]

    def _service(self, server: str) -> str:
        """The service of a server, of which a replica's name has a number, too."""
        replica = server.rpartition("-")[0]
        return replica if not self.has_server(server) and self.has_server(replica) else server

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
        return [*self._first_reloadable(), *sorted(seconds & self.running())]

    def _first_reloadable(self) -> list[str]:
        """Without those that an override turns off."""
        return [name for name in RELOADABLE if self.is_on(name)]

    def hang_up(self, name: str) -> None:
        # After `docker kill`, Docker would not restart the server, even if it dies again later.
        self.compose("exec", "-T", name, "kill", "-HUP", "1")

    def ask(self, name: str, path: str) -> str:
        """A server's response; requested inside its container, as its port may not be published."""
        port = 8404 if name == "proxy" else PORTS[name.removesuffix(SECOND)]
        url = f"http://127.0.0.1:{port}{path}"
        return self.compose("exec", "-T", name, "wget", "-q", "-Y", "off", "-O", "-", url)

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
        printed = {
            name: shell.run([*ask, f"--entrypoint={name}", references[name], "--version"], self.environment)
            for name in ("prometheus", "alertmanager", "postgres")
        }
        return {name: shell.version(text) for name, text in printed.items()}

    def has_data(self) -> bool:
        return bool(self.volumes())

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
        command = ["docker", "compose", *_alone(server, "tar"), "-C", DATA[server], "-cf", "-", "."]
        shell.to_file(f"Copying {server}", command, file, self.environment, PROJECT)

    def keep(self, server: str) -> None:
        """Nothing to do: its volume is kept."""

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        command = ["docker", "compose", *_alone(server, "sh"), "-ec", f"{_empty(server)}; exec tar -xf -"]
        shell.feed(f"Restoring {server}", command, tar, self.environment, PROJECT)

    def replace(self) -> None:
        """Nothing to do: volumes can't be renamed, so the data were restored in place."""

    def recover(self) -> bool:
        return False


def _alone(server: str, program: str) -> list[str]:
    """Arguments of Compose that run `program` in a container like the server's own, with the same volumes."""
    return ["run", "--rm", "-T", "--no-deps", f"--entrypoint={program}", server]


def _empty(server: str) -> str:
    """Shell commands that change to the server's data folder and remove everything in it."""
    return f"cd {DATA[server]}; rm -rf ./* ./.[!.]* ./..?*"
