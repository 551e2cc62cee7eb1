"""The interface of the stack; implemented for Docker (`ops.docker`) and for ordinary processes (`ops.processes`).

What is done with it is written once, in `ops.commands` and `ops.backup`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ops.settings import Settings

RELOADABLE = ("alertmanager", "prometheus")


@dataclass(frozen=True)
class State:
    """The current state of one server: its process or container, its problem (None: healthy), its address.

    An `address` that begins with http is for a browser.
    """

    name: str
    process: str
    problem: str | None
    address: str
    dead: bool = False
    """Whether its process has ended, is being restarted or was never started."""


class Servers(Protocol):
    """Single servers, by their names in docker-compose.yml: what a drill needs."""

    def stop_server(self, name: str) -> None: ...
    def start_server(self, name: str) -> None: ...
    def pids(self, name: str) -> list[int]:
        """The server's main processes, as this machine numbers them."""


class Stack(Servers, Protocol):
    """The stack of one set of settings, running or not. Its command lines are to be run with `environment`."""

    mode: str
    settings: Settings
    environment: dict[str, str]

    @property
    def location(self) -> str:
        """A description of where the data are."""

    def notes(self) -> list[str]:
        """Remarks on this stack for the user."""

    def check(self) -> None:
        """Check for problems that would make a start fail, before anything starts or stops.

        Raises:
            OpsError: a start would fail.
        """

    def fetch(self) -> None:
        """Fetch upstream's images, or the pinned releases, again.

        Raises:
            OpsError: they are not available.
        """

    def start(self) -> bool:
        """Start servers that do not run; True if the stack was running already, so edited files must be reloaded."""

    def write_configs(self) -> None:
        """Rewrite the configuration that depends on settings: that of Prometheus."""

    def replicas(self) -> list[str]:
        """The names of the service's running replicas, for `replace_replica`."""

    def replace_replica(self, name: str) -> None:
        """Replace this replica by a new one.

        Raises:
            OpsError: it does not become ready.
        """

    def stop(self) -> bool:
        """Stop everything; False where nothing ran. The data stay."""

    def remove(self) -> None:
        """Remove the data of the stack, which does not run."""

    def states(self) -> list[State]:
        """All servers; none where nothing runs."""

    def last_words(self, server: str) -> str:
        """The end of a server's log."""

    def log_command(self, server: str, lines: int | None, follow: bool) -> list[str]:
        """The command that shows the logs of one server, or of all; `lines` None: from the beginning."""

    def ask(self, name: str, path: str) -> str:
        """The response of Prometheus or Alertmanager to a GET.

        Raises:
            OpsError: it does not answer.
        """

    def reloadable(self) -> list[str]:
        """The servers that take an edited configuration, RELOADABLE and seconds of them."""

    def hang_up(self, name: str) -> None:
        """Send SIGHUP to a server."""

    def client(self, program: str, *options: str, terminal: bool = False) -> list[str]:
        """A client of PostgreSQL as its superuser; `terminal`: it is used interactively."""

    def tool(self, server: str, program: str, *arguments: str) -> list[str]:
        """promtool or amtool, started in a server's configuration folder."""

    def grafana_cli(self, *arguments: str) -> tuple[list[str], Mapping[str, str]]:
        """Grafana's own command line, and its environment.

        Raises:
            OpsError: there is no Grafana.
        """

    # Backups

    def versions(self) -> dict[str, str]:
        """Server -> version, of what would run here."""

    def has_server(self, name: str) -> bool:
        """Whether the stack has this server; in Docker an override may remove one."""

    def has_data(self) -> bool: ...
    def paused(self, servers: Sequence[str]) -> AbstractContextManager[None]:
        """Stop those of `servers` that run, for the duration of the context."""

    def new_database(self) -> AbstractContextManager[Callable[..., list[str]]]:
        """An empty database with the current secrets, and a `client` for it; effective after `replace()`."""

    def pack(self, server: str, file: Path) -> None:
        """Write a server's data folder into a tar file."""

    def keep(self, server: str) -> None:
        """Keep a server's data, of which the archive has none."""

    def unpack(self, server: str, tar: IO[bytes]) -> None:
        """Replace a server's data by the files in the archive; effective after `replace()`."""

    def replace(self) -> None:
        """Replace the current data by the unpacked and loaded data; nothing may be running."""

    def recover(self) -> bool:
        """Remove what an unfinished restore has left; returns whether the data are complete, as before it."""
