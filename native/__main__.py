"""`python -m native COMMAND`: the stack as ordinary processes. `make` calls this where no Docker engine answers."""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from native import backup, packages, ports, psql, reloading, secrets, settings
from native.asking import confirm
from native.errors import NativeError, refusal
from native.place import NativePlace
from native.servers import PROBE_TIMEOUT, Server, plain_environment
from native.stack import Stack
from native.supervise import Supervisor, config

HEALTHY_TIMEOUT = 120.0  # seconds for everything to be well
CRASHING_TIMEOUT = 15.0  # seconds that a server may go on dying before we give up
NO_GRAFANA = (
    "Grafana is missing: put `grafana` on PATH or set GRAFANA_HOME to an unpacked release, then `make up` again."
)


def up(stack: Stack, supervisor: Supervisor) -> None:
    """Start everything and wait until it is well.

    Where it runs already, start what doesn't, and have the configuration read again.
    """
    with only_one(stack):
        packages.find(*packages.PROGRAMS, *packages.POSTGRES)
        servers = stack.servers()
        wanted = config(supervisor, servers)
        already = supervisor.running and supervisor.config.read_text() == wanted
        if already:
            supervisor.start_stopped()
        else:
            if supervisor.leftovers():
                print("Settings have changed, or the supervisor has died: starting anew")
                supervisor.stop()
            ports.check(stack.ports)
            secrets.make(stack.secrets)
            print("Preparing the database")
            stack.prepare()
            supervisor.start(wanted)
        print(f"Waiting for {len(servers)} servers")
        wait_until_well(stack, supervisor, servers)
        if already:
            reload(stack, supervisor)
    print_welcome(stack, servers)


def reload(stack: Stack, supervisor: Supervisor) -> None:
    """Have Prometheus and Alertmanager read their configuration again. Raises NativeError where one refuses it."""
    if not supervisor.running:
        raise NativeError("Nothing runs; `make up` starts it.")
    for server in stack.servers():
        if server.name in reloading.PORTS:
            reloading.reload(server.name, partial(metrics, server), partial(supervisor.hang_up, server.name))
            print(f"  {server.name:<19}has read its configuration again")


def metrics(server: Server) -> str:
    """What its /metrics says. Raises NativeError where it does not answer."""
    try:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=PROBE_TIMEOUT) as answer:  # noqa: S310  our own
            return str(answer.read().decode())
    except OSError:
        raise NativeError(f"{server.name} does not answer; `make logs SERVICE={server.name}` shows why.") from None


def open_psql(stack: Stack, supervisor: Supervisor) -> None:
    """Hand over to psql: for a person who types, or for what comes in."""
    place = native_place(stack, supervisor)
    place.require_database()
    command = place.client("psql", *psql.options(sys.stdin.isatty()))
    os.execve(command[0], command, {**os.environ, "SECRETS_DIR": str(stack.secrets)})


def down(stack: Stack, supervisor: Supervisor) -> None:
    """End every process; the data stay."""
    with only_one(stack):
        if not supervisor.running and not supervisor.leftovers():
            print("Nothing runs.")
            return
        print("Stopping")
        supervisor.stop()
    print(f"Stopped. The data stay in {stack.data}; `make clean` removes them.")


def status(stack: Stack, supervisor: Supervisor) -> None:
    """Print how everything is. Raises NativeError if something is not well."""
    processes = supervisor.processes()
    if not processes:
        raise NativeError("Nothing runs; `make up` starts it.")
    unwell = 0
    print(f"{'SERVER':<19}{'PROCESS':<36}{'HEALTH':<9}ADDRESS")
    for server in stack.servers():
        process = processes.get(server.name, {"statename": "unknown", "description": "added since: `make up`"})
        problem = server.probe() if process["statename"] == "RUNNING" else process["description"] or "not running"
        state = f"{process['statename'].lower()} {process['description'] if not problem else ''}"
        print(f"{server.name:<19}{state:<36}{'unwell' if problem else 'ok':<9}{server.page or server.address}")
        if problem:
            print(f"{'':<19}{problem}")
            unwell += 1
    print(f"\n{'TARGET':<19}HEALTH (as Prometheus sees it)")
    targets = stack.targets()
    for job, health in sorted(targets.items()):
        print(f"{job:<19}{health}")
        unwell += health != "up"
    if not targets:
        print("Prometheus does not answer.")
    if not stack.has_grafana:
        print(f"\n{NO_GRAFANA}")
    if unwell:
        raise NativeError(
            f"{unwell} not well; `make logs SERVICE=...` shows why." if processes else "Not up: `make up`."
        )


def logs(stack: Stack, supervisor: Supervisor, service: str, follow: bool) -> None:
    """Hand over to `tail` with one server's log, or everybody's."""
    names = [server.name for server in stack.servers()]
    if service and service not in names:
        raise NativeError(f"No server is called {service}; there are {', '.join(names)}.")
    files = [file for name in names if (file := supervisor.logs / f"{name}.log").exists() and service in ("", name)]
    if not files:
        raise NativeError("There are no logs yet: `make up` first.")
    sys.stdout.flush()
    few = "100" if service else "15"
    lines = few if sys.stdout.isatty() else "+1"  # `| grep` shall find it wherever it is
    os.execvp("tail", ["tail", "-n", lines, *(["-F"] if follow else []), *map(str, files)])


def clean(stack: Stack, supervisor: Supervisor, confirmed: bool) -> None:
    """End everything and remove the data and the logs; the secrets and the unpacked servers stay."""
    folders = [folder for folder in (stack.data, supervisor.run, supervisor.logs) if folder.exists()]
    confirm(f"Remove all data of the stack in {stack.data}?", confirmed)
    down(stack, supervisor)
    for folder in folders:
        shutil.rmtree(folder)
    print("Removed.")


def grafana_password(stack: Stack) -> None:
    """Make Grafana take the administrator's password in the secrets; a missing one is made."""
    grafana = next((server for server in stack.servers() if server.name == "grafana"), None)
    if grafana is None:
        raise NativeError(NO_GRAFANA)
    secrets.make(stack.secrets)
    file = stack.secrets / "grafana_admin_password"
    program, _, home = grafana.command
    command = [program, "cli", *home.split("=", 1), "admin", "reset-admin-password", "--password-from-stdin"]
    environment = {**plain_environment(), **grafana.environment}
    backup.feed("Grafana", command, io.BytesIO(file.read_bytes() + b"\n"), env=environment)
    print(f"Grafana's user admin has the password in {file} now.")


def native_place(stack: Stack, supervisor: Supervisor) -> NativePlace:
    return NativePlace(stack, supervisor, up=lambda: up(stack, supervisor), only_one=lambda: only_one(stack))


@contextmanager
def only_one(stack: Stack) -> Iterator[None]:
    """One `make up` or `make down` at a time; a second one waits."""
    stack.state.mkdir(parents=True, exist_ok=True)
    with open(stack.state / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wait_until_well(stack: Stack, supervisor: Supervisor, servers: list[Server]) -> None:
    """Print each server as it becomes well, at last Prometheus' targets. Raises NativeError if it takes too long."""
    started = time.monotonic()
    waiting = {server.name: server for server in servers}
    crashing: dict[str, float] = {}  # since when
    while waiting:
        processes = supervisor.processes()
        for name, server in list(waiting.items()):
            state = processes.get(name, {}).get("statename", "gone")
            problem = server.probe() if state in ("RUNNING", "STARTING") else f"its process is {state.lower()}"
            now = time.monotonic()
            if problem is None:
                print(f"  {name:<19}ok after {now - started:.1f} s", flush=True)
                del waiting[name]
            elif state == "RUNNING":
                crashing.pop(name, None)
            elif state != "STARTING" and now - crashing.setdefault(name, now) > CRASHING_TIMEOUT:
                raise gave_up(supervisor, name, "keeps dying")
            if problem and now - started > HEALTHY_TIMEOUT:
                raise gave_up(supervisor, name, problem)
        time.sleep(0.2)
    while not (targets := stack.targets()) or any(health != "up" for health in targets.values()):
        if time.monotonic() - started > HEALTHY_TIMEOUT:
            bad = ", ".join(sorted(job for job, health in targets.items() if health != "up"))
            raise NativeError(f"Prometheus cannot scrape: {bad or 'anything'}. `make status` shows more.")
        time.sleep(0.5)
    print(f"  {'all targets':<19}up after {time.monotonic() - started:.1f} s")


def gave_up(supervisor: Supervisor, name: str, problem: str) -> NativeError:
    log = supervisor.logs / f"{name}.log"
    lines = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
    last = "".join(f"\n  {line}" for line in lines)
    return NativeError(
        f"{name} {problem}. The end of its log:{last}\n`make logs SERVICE={name}` shows more; `make down` stops."
    )


def print_welcome(stack: Stack, servers: list[Server]) -> None:
    print("\nEverything is well.")
    for server in servers:
        if server.page:
            print(f"  {server.name:<19}{server.page}")
    if not stack.has_grafana:
        print(NO_GRAFANA)
    print("Next: `make loadtest` puts load on it, `make status` shows its health, `make down` stops it.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m native", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status", "reload", "psql"):
        commands.add_parser(name)
    log_command = commands.add_parser("logs")
    log_command.add_argument("service", nargs="?", default="")
    log_command.add_argument("--follow", action="store_true")
    commands.add_parser("clean").add_argument("--yes", action="store_true")
    commands.add_parser("backup")
    commands.add_parser("grafana-password")
    restore = commands.add_parser("restore")
    restore.add_argument("archive", nargs="?", default="")
    restore.add_argument("--yes", action="store_true")
    arguments = parser.parse_args()
    os.umask(0o022)
    try:
        stack = Stack(settings.load())
        supervisor = Supervisor(stack.state)
        match arguments.command:
            case "up":
                up(stack, supervisor)
            case "down":
                down(stack, supervisor)
            case "status":
                status(stack, supervisor)
            case "reload":
                reload(stack, supervisor)
            case "psql":
                open_psql(stack, supervisor)
            case "logs":
                logs(stack, supervisor, arguments.service, arguments.follow)
            case "clean":
                clean(stack, supervisor, arguments.yes)
            case "grafana-password":
                grafana_password(stack)
            case "backup":
                with only_one(stack):
                    backup.backup(native_place(stack, supervisor), stack.settings.folder("BACKUPS_DIR"))
            case "restore":
                folder = stack.settings.folder("BACKUPS_DIR")
                backup.restore(native_place(stack, supervisor), arguments.archive, arguments.yes, folder)
    except NativeError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(refusal(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
