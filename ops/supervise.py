"""The process supervisor (supervisord): starts the servers, restarts crashed ones, limits the logs.

It is controlled through a Unix socket in a folder that is its owner's alone.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from ops.errors import OpsError
from ops.paths import PROJECT, gone
from ops.servers import Server, plain_environment

MARK = "SIGHTLINE_STACK"  # in the environment of every process of the stack: the folder of its state
STOP_TIMEOUT = 25  # seconds for a server to end before it is killed; the app lets requests finish
LONGEST_SOCKET_PATH = 90  # the kernel allows 107 characters, and supervisord appends to the name while it starts

DAEMON = """\
[supervisord]
pidfile={run}/supervisord.pid
logfile={logs}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
directory={project}
umask=077
{user}
[unix_http_server]
file={run}/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:restarts]
supervisor.rpcinterface_factory=ops.restarts:bound
"""
PROGRAM = """
[program:{name}]
command={command}
environment={environment}
directory={directory}
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
autorestart=true
startsecs=2
startretries=1000
stopsignal={stop_signal}
stopwaitsecs={stop_timeout}
killasgroup=true
"""


class Supervisor:
    """The supervisor of one state folder, whether it runs or not."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.run = state / "run"
        self.logs = state / "logs"
        self.config = self.run / "supervisord.conf"
        self.socket = self.run / "supervisor.sock"
        if len(str(self.socket)) > LONGEST_SOCKET_PATH:
            raise OpsError(f"The path {state} is too long for a Unix socket; set SIGHTLINE_STATE to a shorter folder.")

    @property
    def marked(self) -> dict[str, str]:
        """The environment of every process of the stack, also of those that run while it is stopped."""
        return {**plain_environment(), MARK: str(self.state)}

    @property
    def running(self) -> bool:
        """Whether it accepts commands; one that is shutting down doesn't."""
        try:
            self._call("getState")
        except (OSError, OpsError):
            return False
        return True

    def start(self, config: str) -> None:
        for folder in (self.run, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.config.touch(mode=0o600)  # it may hold API keys
        self.config.write_text(config)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config)]
        result = subprocess.run(command, env=self.marked, cwd=PROJECT, capture_output=True, text=True)
        if result.returncode:
            raise OpsError(f"supervisord does not start: {(result.stderr or result.stdout).strip()}")

    def start_stopped(self) -> None:
        """Start every server that doesn't run."""
        self._call("startAllProcesses", False)

    def stop_server(self, name: str) -> None:
        """End one server, which then stays down until `start_server`."""
        self._call("stopProcess", name)

    def start_server(self, name: str) -> None:
        """Start one server unless it runs; one that is still being stopped is waited for."""
        while (state := self.processes()[name]["statename"]) == "STOPPING":  # STOP_TIMEOUT at most
            time.sleep(0.1)
        if state not in ("STARTING", "RUNNING"):
            self._call("startProcess", name)

    def hang_up(self, name: str) -> None:
        """Send SIGHUP to one server."""
        self._call("signalProcess", name, "HUP")

    def processes(self) -> dict[str, dict[str, Any]]:
        """supervisord's report on every process by name: statename, pid, description; empty if it doesn't run."""
        try:
            return {process["name"]: process for process in self._call("getAllProcessInfo")}
        except OSError:
            return {}

    def stop(self) -> None:
        """End every process of the stack, including those that a dead supervisor or command has left."""
        if self.running:
            self._call("shutdown")
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            daemon = psutil.Process(int((self.run / "supervisord.pid").read_text()))
            if daemon in self.leftovers():  # else the number is another process's by now
                psutil.wait_procs([daemon], STOP_TIMEOUT + 5)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in self.leftovers():
                with suppress(psutil.NoSuchProcess):
                    end(process)
            psutil.wait_procs(self.leftovers(), STOP_TIMEOUT)
        for file in (self.run / "supervisord.pid", self.socket):
            file.unlink(missing_ok=True)

    def leftovers(self) -> list[psutil.Process]:
        """All living processes that carry this stack's mark."""
        marks = {str(self.state), *self._moved_from()}
        processes = psutil.process_iter(["environ"])  # None: another user's
        return [one for one in processes if (one.info["environ"] or {}).get(MARK) in marks]

    def _moved_from(self) -> list[str]:
        """The former path of the state folder, if processes were started there before the folder was moved."""
        text = self.config.read_text() if self.config.exists() else ""
        before = re.findall(r"^pidfile=(.+)/run/supervisord\.pid$", text, re.MULTILINE)
        return [place for place in before if gone(Path(place))]

    def listening(self) -> set[int]:
        """The ports on which the stack's processes listen."""
        found = set()
        for process in self.leftovers():
            with suppress(psutil.Error):
                found |= {one.laddr.port for one in process.net_connections("inet") if one.status == "LISTEN"}
        return found

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        transport.connection = _Connection(self.socket)
        transport.headers = {"Content-Type": "text/xml"}
        try:
            with ServerProxy("http://localhost", transport=transport) as server:
                return getattr(server.supervisor, method)(*arguments)
        except Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise OpsError("The stack is being stopped.") from None
            raise OpsError(f"supervisord reports an error: {fault.faultString}. `make logs` shows why.") from None


class _Connection(HTTPConnection):
    """To supervisord's socket; one that hangs is given up."""

    def __init__(self, file: Path) -> None:
        super().__init__("localhost")
        self._file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(STOP_TIMEOUT + 15)  # it answers when the server that is to be stopped has ended
        self.sock.connect(str(self._file))


def config(supervisor: Supervisor, servers: Iterable[Server], files: str) -> str:
    """supervisord's configuration for these servers; `files`: the checksum of files that they read at startup."""
    places = {"run": supervisor.run, "logs": supervisor.logs, "project": PROJECT}
    text = f"; started with {files}\n" + DAEMON.format(**places, user="user=root" if os.geteuid() == 0 else "")
    for server in servers:
        text += PROGRAM.format(
            name=server.name,
            # Of several lines, all but the first are indented, and read without that.
            command=shlex.join(server.command).replace("%", "%%").replace("\n", "\n  "),
            environment=",".join(f"{name}={_quoted(name, value)}" for name, value in server.environment.items()),
            directory=server.folder,
            stop_signal=server.stop_signal.name.removeprefix("SIG"),
            stop_timeout=STOP_TIMEOUT,
            logs=supervisor.logs,
        )
    return text


def _quoted(name: str, value: str) -> str:
    """A value in the format of supervisord's configuration, whose only escape is the doubled percent sign."""
    if any(character in value for character in '"\n\r') or value.strip("'") != value:
        raise OpsError(
            f"{name} contains a quotation mark or a line break, which supervisord cannot pass on; use a file instead."
        )
    return '"' + value.replace("%", "%%") + '"'
