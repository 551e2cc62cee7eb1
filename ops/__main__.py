"""`python3 -m ops COMMAND [NAME=value ...]`: what `make` calls.

Docker mode, `secrets` and `adopt` use the standard library only; commands that need packages continue with the Python
of `.venv`. Exit code 0: success; 1: failure, for the reason in the last line; 2: usage error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import which
from types import FrameType

from ops import adopt, commands, console, preflight, secrets, settings
from ops.compose import mark
from ops.console import log
from ops.docker import ComposeStack
from ops.errors import NO_DOCKER, OpsError, refusal
from ops.paths import PROJECT
from ops.settings import MODES, Settings
from ops.shell import succeeds
from ops.stack import Stack

VENV = PROJECT / ".venv"
ENGINE_TIMEOUT = 20  # seconds for an engine to answer
CHECKED = ("up", "restart", "restore", "check-config")  # bad settings stop these before anything starts or stops
UNATTACHED = ("check-config", "check-files", "pull")  # they touch no container
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATHS = ("TARGET", "OUT", "FROM")  # parameters whose ~ some shells leave as it is
LOAD = ("HOST", "USERS", "DURATION", "SHAPE", "THINK", "WEIGHTS", "WORKERS", "MASTER")


@dataclass
class Call:
    """One command line: the command's name, its parameters, and the settings."""

    command: str
    given: dict[str, str]
    settings: Settings

    def __getitem__(self, parameter: str) -> str:
        return self.given.get(parameter, "")

    @cached_property
    def mode(self) -> str:
        """How the stack runs, or would run if started now.

        Raises:
            OpsError: MODE is neither of MODES.
        """
        wanted = self["MODE"] or self.settings.get("SIGHTLINE_MODE")
        if wanted and wanted not in MODES:
            raise OpsError(f"MODE is '{wanted}'; it must be {' or '.join(MODES)}.")
        if wanted:
            return wanted
        if (self.settings.folder("SIGHTLINE_STATE") / "run" / "supervisor.sock").exists():
            return "native"  # it runs already
        engine = all(succeeds(["docker", *ask], timeout=ENGINE_TIMEOUT) for ask in (["compose", "version"], ["info"]))
        if not engine and mark(self.settings).exists():
            raise OpsError(NO_DOCKER if which("docker") is None else "This stack is in Docker, and no engine answers.")
        if not engine and self.command == "up":
            log.info("No Docker engine answers: the stack runs as ordinary processes on 127.0.0.1.")
        return "docker" if engine else "native"

    def stack(self) -> Stack:
        checked = self.command in CHECKED
        if checked:
            self.settings.check()
        if self.mode == "native":
            self.need_packages()  # restarts the command with the Python of .venv
        if checked:
            self.settings.warn()
        if self.mode == "docker":
            return self.compose_stack()
        from ops.processes import ProcessStack

        return ProcessStack(self.settings)

    def compose_stack(self) -> ComposeStack:
        stack = ComposeStack(self.settings)
        if self.command not in UNATTACHED:
            preflight.require_ownership(stack)
        return stack

    def need_packages(self) -> None:
        """Continue as the Python of `.venv`, which `make venv` creates or updates.

        Raises:
            OpsError: the packages can't be installed.
        """
        if sys.prefix == str(VENV):
            return
        plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        if subprocess.run(["make", "--silent", "venv"], cwd=PROJECT, env=plain).returncode:
            raise OpsError("The Python packages that native mode needs can't be installed; see the lines above.")
        sys.stdout.flush()
        python = str(VENV / "bin" / "python")
        if "mode" in self.__dict__:
            self.given["MODE"] = self.mode  # so that it is not determined twice
        words = [f"{name}={value}" for name, value in self.given.items()]
        os.execv(python, [python, "-m", "ops", self.command, *words])


def _secrets(call: Call) -> None:
    made = secrets.make(call.settings.folder("SECRETS_DIR"))
    print(f"Created: {', '.join(made)}" if made else "All secrets exist.")


def _outdated(call: Call) -> None:
    call.need_packages()
    from ops import outdated, programs

    outdated.report()
    if call.mode == "native":
        for server in programs.older():
            print(f"Native mode runs {server}; `make pull` fetches what is available.")


def _kubernetes(call: Call) -> None:
    call.need_packages()
    from ops.kubernetes import Cluster, write

    if not call["OUT"]:
        raise OpsError("Set OUT= to the folder to write.")
    port, release = call["PORT"] or "http", call["RELEASE"] or "kube-prometheus-stack"
    links = call.settings.get("GRAFANA_URL"), call.settings.get("RUNBOOKS_URL")
    cluster = Cluster(call["SERVICE"], call["NAMESPACE"], port, release, call["TOKEN_SECRET"], call["EXPORTER"], *links)
    files = write(cluster, Path(call["OUT"]))
    print(f"{len(files)} files in {call['OUT']}; next: kubectl apply --server-side -k {call['OUT']}")


def _incident(call: Call) -> int:
    call.need_packages()
    from ops.drills.run import incident

    return incident(call["NAME"], call.stack)


def _adopt(call: Call) -> None:
    adopt.adopt(call["TARGET"], call["PIECES"], call["PACKAGE"], call["SERVICE"], bool(call["OVERWRITE"]))


def _loadtest(call: Call) -> int:
    page, worker = call.command == "loadtest-ui", call.command == "loadtest-worker"
    if call["HOST"] or call["MASTER"] or worker or call.mode == "native":
        call.need_packages()
        python = [sys.executable, "-m", "loadtest", *(["--ui"] if page else ["--worker"] if worker else [])]
        os.execve(python[0], python, call.settings.environment())
    from loadtest import docker

    return docker.main(call.compose_stack(), page)


Command = tuple[Callable[[Call], int | None], tuple[str, ...]]  # what it does, its parameters


def _stack(function: Callable[..., int | None], *parameters: str) -> Command:
    """A command that is called with the stack and the values of its parameters, empty if not given."""
    return lambda call: function(call.stack(), *(call[name] for name in parameters)), parameters


COMMANDS: dict[str, Command] = {
    "up": _stack(commands.up),
    "down": _stack(commands.down),
    "status": _stack(commands.status),
    "logs": _stack(commands.logs, "SERVICE", "FOLLOW"),
    "psql": _stack(commands.psql),
    "check-config": _stack(commands.check_config),
    "check-files": _stack(commands.check_files),
    "reload": _stack(commands.reload),
    "restart": _stack(commands.restart),
    "clean": _stack(commands.clean, "CONFIRM"),
    "backup": _stack(commands.make_backup),
    "restore": _stack(commands.restore, "FROM", "CONFIRM"),
    "grafana-password": _stack(commands.grafana_password),
    "pull": _stack(commands.pull),
    "loadtest": (_loadtest, LOAD),
    "loadtest-worker": (_loadtest, ("MASTER", "WORKERS", "THINK", "WEIGHTS")),
    "loadtest-ui": (_loadtest, LOAD),
    "incident": (_incident, ("NAME",)),
    "secrets": (_secrets, ()),
    "outdated": (_outdated, ()),
    "kubernetes": (_kubernetes, ("OUT", "SERVICE", "NAMESPACE", "PORT", "RELEASE", "TOKEN_SECRET", "EXPORTER")),
    "adopt": (_adopt, ("TARGET", "PIECES", "PACKAGE", "SERVICE", "OVERWRITE")),
}
PARAMETERS = {"MODE", *(name for _, parameters in COMMANDS.values() for name in parameters)}


def _check_parameters(command: str, given: dict[str, str]) -> None:
    """Check that each name of the command line is a parameter of this command, or of another one on it, or a setting.

    Raises:
        OpsError: one is not, and would have no effect.
    """
    goals = os.environ.get("MAKECMDGOALS", "").split()  # `make up loadtest USERS=5` gives the parameters to both
    takes = {"MODE"}
    for goal in {command, *goals} if command in goals else {command}:
        takes.update(COMMANDS[goal][1] if goal in COMMANDS else ())
    for name in sorted(given.keys() - takes):
        reason = (
            f"`make {command}` has no parameter {name}{settings.nearest(name, takes) or '.'}"
            if name in PARAMETERS
            else settings.unknown(name, takes)
        )
        if reason and os.environ.get("MAKELEVEL", "") in ("", "0", "1"):
            raise OpsError(reason)
        if reason:  # a nested make inherits the variables of the outer make's command line
            log.warning("%s Ignored, as another make calls this one.", reason)
            del given[name]


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal ends the command; further ones (make passes SIGTERM on) don't interrupt its cleanup."""
    for end in ENDS:
        signal.signal(end, lambda *_: None)
    raise KeyboardInterrupt


def main(words: list[str]) -> int:
    console.configure()
    os.umask(0o022)
    for end in ENDS:
        if signal.getsignal(end) != signal.SIG_IGN:  # as under nohup
            signal.signal(end, _interrupt)
    if not words or words[0] not in COMMANDS or any("=" not in word for word in words[1:]):
        print(__doc__, file=sys.stderr)
        for name, (_, takes) in COMMANDS.items():
            print(f"  {name:<18}{' '.join(f'{parameter}=' for parameter in takes)}".rstrip(), file=sys.stderr)
        return 2
    command = words[0]
    try:
        given = dict(word.split("=", 1) for word in words[1:])
        _check_parameters(command, given)
        given |= {name: str(settings.expanded(name, given[name])) for name in PATHS if given.get(name)}
        # Names as common as these count only on the command line, not if the shell happens to export them.
        for name in PARAMETERS:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in given.items() if name in LOAD or name not in PARAMETERS})
        code = COMMANDS[command][0](Call(command, given, settings.load())) or 0
        return code or int(console.output_was_lost())
    except OpsError as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error("%s", refusal(error))
        return 1
    except KeyboardInterrupt:
        log.error("Interrupted. %s", "`make status` shows what runs, `make up` continues." if command == "up" else "")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
