"""Backup and restore of the containers: each server's volume through a container of its own, with its rights only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from native import backup
from stack import compose, database, images
from stack.paths import PROJECT
from stack.programs import run

DATA = {
    "postgres": "/var/lib/postgresql",
    "prometheus": "/prometheus",
    "alertmanager": "/alertmanager",
    "grafana": "/var/lib/grafana",
}
VERSIONS_OF = ("prometheus", "alertmanager", "postgres")


class DockerPlace:
    """See `native.backup.Place`."""

    mode = "docker"

    def __init__(self) -> None:
        compose.make_secrets()
        self.environment = compose.environment()
        compose.pull_missing(self.environment)

    def versions(self) -> dict[str, str]:
        references = images.upstream()
        ask = ["docker", "run", "--rm", "--network=none"]
        return {
            name: backup.version(run([*ask, f"--entrypoint={name}", references[name], "--version"], self.environment))
            for name in VERSIONS_OF
        }

    def require_database(self) -> None:
        database.require()

    def has_data(self) -> bool:
        project = compose.config(self.environment)["name"]
        label = f"label=com.docker.compose.project={project}"
        return bool(run(["docker", "volume", "ls", "--quiet", "--filter", label], self.environment))

    def stop(self) -> None:
        compose.call([compose.EVERYTHING, "down", "--remove-orphans"], self.environment)

    def start(self) -> None:
        compose.up()

    @contextmanager
    def paused(self, servers: Sequence[str]) -> Iterator[None]:
        up = compose.running(self.environment)
        running = [name for name in servers if name in up]
        try:
            if running:
                compose.call(["stop", *running], self.environment)
            yield
        finally:
            if running:
                compose.call(["up", "--detach", "--no-build", "--no-recreate", "--wait", *running], self.environment)

    def dump(self, file: Path) -> None:
        backup.run("Dumping", database.client("pg_dump", "--format=custom"), file, env=self.environment, cwd=PROJECT)

    def load(self, dump: IO[bytes]) -> None:
        compose.call([*_alone("postgres", "sh"), "-ec", _empty("postgres")], self.environment)
        compose.call(["up", "--detach", "--wait", "postgres"], self.environment)
        command = database.client("pg_restore", "--format=custom", "--exit-on-error", "--single-transaction")
        backup.feed("Loading", command, dump, env=self.environment, cwd=PROJECT)

    def pack(self, server: str, file: Path) -> None:
        command = ["docker", "compose", *_alone(server, "tar"), "-C", DATA[server], "-cf", "-", "."]
        backup.run(f"Copying {server}", command, file, env=self.environment, cwd=PROJECT)

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        command = ["docker", "compose", *_alone(server, "sh"), "-ec", f"{_empty(server)}; exec tar -xf -"]
        backup.feed(f"Restoring {server}", command, tar, env=self.environment, cwd=PROJECT)


def _alone(server: str, program: str) -> list[str]:
    """Arguments of Compose that run `program` in a container like the server's own, and with its volume."""
    return ["run", "--rm", "-T", "--no-deps", f"--entrypoint={program}", server]


def _empty(server: str) -> str:
    """Shell commands that remove all that the server has; the shell is in its folder then."""
    return f"cd {DATA[server]}; rm -rf ./* ./.[!.]* ./..?*"
