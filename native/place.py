"""Backup and restore of the native stack: its folders, and its PostgreSQL through a socket for its owner alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO

from native import backup, postgres
from native.errors import NativeError
from native.packages import find
from native.psql import NO_DATABASE
from native.secrets import generate
from native.stack import Stack
from native.supervise import Supervisor

VERSIONS_OF = ("prometheus", "alertmanager", "postgres")


class NativePlace:
    """See `native.backup.Place`."""

    mode = "native"

    def __init__(
        self,
        stack: Stack,
        supervisor: Supervisor,
        up: Callable[[], None],
        only_one: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.stack = stack
        self.supervisor = supervisor
        self._up = up
        self._only_one = only_one
        self._alone = ExitStack()

    def versions(self) -> dict[str, str]:
        programs = find(*VERSIONS_OF)
        said = {
            name: subprocess.run([programs[name], "--version"], capture_output=True, text=True) for name in programs
        }
        return {name: backup.version(answer.stdout + answer.stderr) for name, answer in said.items()}

    def require_database(self) -> None:
        if self.supervisor.processes().get("postgres", {}).get("statename") != "RUNNING":
            raise NativeError(NO_DATABASE)

    def has_data(self) -> bool:
        return any(self.stack.data.glob("*/*"))

    def stop(self) -> None:
        """Stop everything; a `make up` of somebody else waits until `start`."""
        self._alone.close()
        self._alone.enter_context(self._only_one())
        self.supervisor.stop()

    def start(self) -> None:
        self._alone.close()
        self._up()

    @contextmanager
    def paused(self, servers: Sequence[str]) -> Iterator[None]:
        processes = self.supervisor.processes()
        running = [name for name in servers if processes.get(name, {}).get("statename") == "RUNNING"]
        try:
            for name in running:
                self.supervisor.stop_server(name)
            yield
        finally:
            for name in running:
                self.supervisor.start_server(name)

    def dump(self, file: Path) -> None:
        backup.run("Dumping", self.client("pg_dump", "--format=custom"), file, cwd="/")

    def load(self, dump: IO[bytes]) -> None:
        shutil.rmtree(self._folder("postgres"), ignore_errors=True)
        generate(self.stack.secrets)
        self.stack.prepare()
        with postgres.private(self._folder("postgres")):
            options = ("--format=custom", "--exit-on-error", "--single-transaction")
            backup.feed("Loading", self.client("pg_restore", *options, port=postgres.PRIVATE_PORT), dump, cwd="/")

    def pack(self, server: str, file: Path) -> None:
        folder = self._folder(server)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        backup.run(f"Copying {server}", ["tar", f"--directory={folder}", "--create", "--file=-", "."], file)

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        folder = self._folder(server)
        shutil.rmtree(folder, ignore_errors=True)
        self.stack.make_folders()
        folder.mkdir(mode=0o700, exist_ok=True)
        command: tuple[str, ...] = ("tar", f"--directory={folder}", "--extract", "--no-same-owner", "--file=-")
        if server == "postgres":
            postgres.own(folder)
            command = postgres.as_owner(folder, *command)
        backup.feed(f"Restoring {server}", command, tar, cwd="/")
        folder.chmod(0o700)

    def _folder(self, server: str) -> Path:
        return self.stack.data / server

    def client(self, program: str, *options: str, port: int | None = None) -> list[str]:
        """A client of PostgreSQL as its superuser: the kernel vouches for the user, no password is needed."""
        port = port or self.stack.settings.port("POSTGRES_PORT")
        place = (f"--host={self._folder('postgres')}", f"--port={port}", "--dbname=sightline")
        return [str(find(program)[program]), *options, *place, "--username=postgres", "--no-password"]
