"""The stack without Docker, as `ops.stack.Stack` describes it: ordinary processes on 127.0.0.1, and their data."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops import configs, http, ports, postgres, programs, secrets, shell
from ops.console import log
from ops.errors import OpsError
from ops.native import NativeServers
from ops.packages import NEEDED, POSTGRES
from ops.paths import PROJECT
from ops.rolling import wait_until_active, wait_until_ready
from ops.servers import Server, plain_environment
from ops.settings import DATA_FOLDERS, Settings
from ops.stack import RELOADABLE, State
from ops.supervise import Supervisor, config

ANSWER_TIMEOUT = 15.0  # seconds for Prometheus to respond on a busy machine; probes are repeated, queries are not
CHECK_TIMEOUT = 60.0  # seconds for the service to check its settings: two, on a machine that is not busy


class ProcessStack(NativeServers):
    """See `ops.stack.Stack`. Nothing is touched before `prepare()`."""

    mode = "native"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # Beside the data while a restore or `clean` runs: what is loaded, what it replaced, what is being removed.
        self.new, self.old, self.removed = (self.state / f"data.{name}" for name in ("new", "old", "removed"))
        self.supervisor = Supervisor(self.state)
        self.environment = {
            **postgres.client_environment(settings.environment()),
            "SECRETS_DIR": str(self.secrets),
        }

    @property
    def location(self) -> str:
        return str(self.data)

    # Starting and stopping

    def check(self) -> None:
        self.warn_of_unused_settings()
        self._fetch()
        programs.find(*NEEDED)
        programs.find(*POSTGRES, major=self.postgres_major)
        programs.find(*(("haproxy",) if self.has_proxy else ()))
        files = f"{configs.read_at_start(*configs.AT_START)} {configs.keys(self.settings)}".strip()
        self._wanted = config(self.supervisor, self.servers(), files)
        ports.check(self.ports, self.supervisor.listening)

    def fetch(self) -> None:
        self._fetch()
        programs.find(*NEEDED)
        if older := programs.older():
            raise OpsError(f"Not available: {', '.join(older)}.")

    def _fetch(self) -> None:
        """Fetch the pinned releases that the network, a mirror or the folder of archives has."""
        own_grafana = {"grafana"} if self.settings.get("GRAFANA_HOME") else set()
        programs.fetch(*(set(programs.RELEASED) - own_grafana))

    def start(self) -> bool:
        if self.supervisor.running and self.supervisor.config.read_text() == self._wanted:
            self.supervisor.start_stopped()
            return True
        self._check_service()
        if self.supervisor.leftovers():
            log.info("Settings or files have changed, or the supervisor has died: restarting everything")
            self.supervisor.stop()
        log.info("Preparing the database")
        self.prepare()
        self.supervisor.start(self._wanted)
        return False

    def _check_service(self) -> None:
        """Have the service check its own settings, before anything stops because of them.

        Raises:
            OpsError: it would not start.
        """
        app = self.server("app")
        environment = {**self.supervisor.marked, **app.environment}
        command = [*app.command, "check"]
        try:
            checked = subprocess.run(
                command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=CHECK_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            raise OpsError(f"The service has not checked its settings within {CHECK_TIMEOUT:g} s.") from None
        if checked.returncode:
            _, refused, reason = checked.stderr.strip().rpartition("Cannot start: ")  # warnings may come before it
            if refused:
                raise OpsError(reason)
            last = reason.rpartition("\n")[2] or "without output"
            raise OpsError(f"The service's check of its settings ended with exit code {checked.returncode}: {last}")

    def stop(self) -> bool:
        if not self.supervisor.running and not self.supervisor.leftovers():
            return False
        log.info("Stopping")
        self.supervisor.stop()
        return True

    def remove(self) -> None:
        if self.data.exists():  # whole or not at all
            self._remove(self.removed)
            self.data.rename(self.removed)
        for folder in (self.removed, self.new, self.old, *(self.state / name for name in DATA_FOLDERS)):
            self._remove(folder)

    def prepare(self) -> None:
        """Make the folders, the lists of targets and the database."""
        self._make_folders(self.data)
        for name in ("prometheus", "alertmanager", "grafana"):
            (self.data / name).mkdir(mode=0o700, exist_ok=True)
        self.link_configs()
        self._initialise(self.data / "postgres")

    def _initialise(self, folder: Path) -> None:
        postgres.initialise(folder, self.secrets, environment=self.supervisor.marked)

    def replicas(self) -> list[str]:
        processes = self.supervisor.processes()
        # The first line is about files, which the new replicas take as they are.
        wanted, running = config(self.supervisor, self.servers(), ""), self.supervisor.config
        if processes and wanted.partition("\n")[2] != running.read_text().partition("\n")[2]:
            raise OpsError("Settings have changed: `make up` restarts everything with them.")
        return [name for name in self.replica_ports if name in processes]

    def replace_replica(self, name: str) -> None:
        self.supervisor.stop_server(name)
        self.supervisor.start_server(name)
        if self.has_proxy:
            wait_until_active(self, len(self.replica_ports))
        else:
            wait_until_ready(name, self.server(name).probe)

    # Looking

    def states(self) -> list[State]:
        processes = self.supervisor.processes()
        if not processes and self.supervisor.leftovers():
            raise OpsError(
                "The supervisor has died, its servers still run: `make up` restarts everything, `make down` stops it."
            )
        return [self._state(server, processes.get(server.name)) for server in self.servers()] if processes else []

    @staticmethod
    def _state(server: Server, process: Mapping[str, str] | None) -> State:
        address = server.page or server.address
        if process is None:
            return State(server.name, "unknown", "added since: `make up`", address, dead=True)
        state = process["statename"]
        problem = server.probe() if state in ("RUNNING", "STARTING") else process["description"] or "not running"
        words = f"{state.lower()} {process['description'] if not problem else ''}"
        return State(server.name, words, problem, address, dead=state != "RUNNING")

    def notes(self) -> list[str]:
        notes = [] if self.has_grafana else [programs.no_grafana()]
        if older := programs.older(self.postgres_major):
            notes.append(
                f"Not in the pinned versions: {', '.join(older)}. `make pull` fetches those that are available."
            )
        if programs.from_debian("prometheus"):
            notes.append(
                "Debian's Prometheus has the classic web interface only, at /classic; its Alertmanager has none."
            )
        return notes

    def last_words(self, server: str) -> str:
        log_file = self._log(server)
        return log_file.read_text(errors="replace") if log_file.exists() else ""

    def log_command(self, server: str, lines: int | None, follow: bool) -> list[str]:
        names = [self.server(server).name] if server else [one.name for one in self.servers()]
        files = [str(file) for name in names if (file := self._log(name)).exists()]
        if not files:
            raise OpsError("There are no logs yet; run `make up` first.")
        return ["tail", "-n", "+1" if lines is None else str(lines), *(["-F"] if follow else []), *files]

    def _log(self, server: str) -> Path:
        return self.supervisor.logs / f"{server}.log"

    # Single servers

    def stop_server(self, name: str) -> None:
        self.supervisor.stop_server(name)

    def start_server(self, name: str) -> None:
        self.supervisor.start_server(name)

    def pids(self, name: str) -> list[int]:
        return [int(self.supervisor.processes()[name]["pid"])]

    def ask(self, name: str, path: str) -> str:
        try:
            return http.get(f"{self.server(name).url}{path}", ANSWER_TIMEOUT)
        except OSError:
            raise OpsError(f"{name} does not answer; `make logs SERVICE={name}` shows why.") from None

    def reloadable(self) -> list[str]:
        return [*RELOADABLE]

    def hang_up(self, name: str) -> None:
        self.supervisor.hang_up(name)

    # Programs

    def client(self, program: str, *options: str, terminal: bool = False) -> list[str]:
        return self._client(program, *options, data=self.data / "postgres", port=self.settings.port("POSTGRES_PORT"))

    def _client(self, program: str, *options: str, data: Path, port: int) -> list[str]:
        """Peer authentication over the Unix socket: no password is needed."""
        place = (f"--host={data}", f"--port={port}", "--dbname=sightline")
        found = programs.find(program, major=postgres.major(data))[program]
        return [str(found), *options, *place, "--username=postgres", "--no-password"]

    def tool(self, server: str, program: str, *arguments: str) -> list[str]:
        found = str(programs.find(program)[program])
        return ["env", f"--chdir={PROJECT / server}", found, *arguments]

    def grafana_cli(self, *arguments: str) -> tuple[list[str], Mapping[str, str]]:
        if not self.has_grafana:
            raise OpsError(programs.no_grafana())
        grafana = self.server("grafana")
        program, _, home = grafana.command
        return [program, "cli", *home.split("=", 1), *arguments], {**plain_environment(), **grafana.environment}

    # Backups

    def versions(self) -> dict[str, str]:
        found = programs.find("prometheus", "alertmanager")
        found |= programs.find("postgres", major=self.postgres_major)
        said = {name: subprocess.run([found[name], "--version"], capture_output=True, text=True) for name in found}
        return {name: shell.version(answer.stdout + answer.stderr) for name, answer in said.items()}

    def has_server(self, name: str) -> bool:
        return True

    def has_data(self) -> bool:
        return any(self.data.glob("*/*"))

    @contextmanager
    def paused(self, names: Sequence[str]) -> Iterator[None]:
        processes = self.supervisor.processes()
        running = [name for name in names if processes.get(name, {}).get("statename") == "RUNNING"]
        try:
            for name in running:
                self.supervisor.stop_server(name)
            yield
        finally:
            for name in running:
                self.supervisor.start_server(name)

    @contextmanager
    def new_database(self) -> Iterator[Callable[..., list[str]]]:
        folder = self.new / "postgres"
        secrets.generate(self.secrets)
        self._make_folders(self.new)
        self._initialise(folder)
        with postgres.private(folder, environment=self.supervisor.marked):
            yield lambda program, *options: self._client(program, *options, data=folder, port=postgres.PRIVATE_PORT)

    def pack(self, server: str, file: Path) -> None:
        folder = self.data / server
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ["tar", f"--directory={folder}", "--create", "--file=-", "."]
        shell.to_file(f"Copying {server}", command, file, self.supervisor.marked, "/")

    def keep(self, server: str) -> None:
        self._make_folders(self.new)
        if (self.data / server).exists():
            shutil.copytree(self.data / server, self.new / server, symlinks=True)

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        folder = self.new / server
        self._make_folders(self.new)
        folder.mkdir(mode=0o700)
        command: tuple[str, ...] = ("tar", f"--directory={folder}", "--extract", "--no-same-owner", "--file=-")
        if server == "postgres":
            postgres.own(folder)
            command = postgres.as_owner(*command)
        shell.feed(f"Restoring {server}", command, tar, self.supervisor.marked, "/")
        folder.chmod(0o700)

    def replace(self) -> None:
        self._remove(self.old)
        if self.data.exists():
            self.data.rename(self.old)
        self.new.rename(self.data)

    def recover(self) -> bool:
        if self.new.exists() and not self.supervisor.running:
            self.supervisor.stop()  # what loads into it
        if self.old.exists() and not self.data.exists():
            self.old.rename(self.data)
        if self.new.exists():
            log.info("Removing the data of an unfinished restore, which replaced nothing")
            self._remove(self.new)
        for folder in (self.old, self.removed):
            self._remove(folder)
        return self.has_data()

    @staticmethod
    def _remove(folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)

    def _make_folders(self, data: Path) -> None:
        for folder in (self.state, data):  # PostgreSQL, run by another user where root starts it, gets through
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
