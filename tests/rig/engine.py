"""The Docker engine: the one that answers, else a private one unpacked from Debian packages.

The private engine needs root on Debian. Its programs, images and volumes stay in `.stack/`, so that the next start is
warm. It stops with the last process that uses it and leaves no packet filter rule and no bridge behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops.console import log, step
from ops.errors import OpsError
from ops.packages import Apt, release
from ops.shell import run, succeeds
from tests.rig import packet_filter
from tests.rig.paths import (
    DATA,
    EXEC,
    GATE_LOCK,
    HOME,
    KEPT_FILE,
    LOG,
    OWNER_FILE,
    PID_FILE,
    PROGRAMS,
    PROJECT,
    RUN,
    SOCKET,
    USERS_LOCK,
)

SUITE = "trixie"  # a released Debian, so that the engine stays what it is: Docker 26.1 with Compose 2.26
MINIMUM_DEBIAN = 12
PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd", "tini")
TOOLS = {"iptables": "iptables", "ip": "iproute2", "debootstrap": "debootstrap"}  # program -> package
RUNTIME = "runc"  # from the machine's own release: unlike the others it needs the C library it was built with
WAIT_SECONDS = 60  # for the engine to answer, or to end
ANSWER_SECONDS = 20
QUEUE_SECONDS = 1800  # for another checkout's engine to be free: about the time of a whole CI run


def answers(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a Docker engine answers to a client that has Compose."""
    everything = {**os.environ, **(environment or {})}
    commands = (["docker", "version"], ["docker", "compose", "version"])
    return all(succeeds(command, everything, timeout=ANSWER_SECONDS) for command in commands)


def client() -> dict[str, str]:
    """The environment of a process that wants Docker's client with Compose, and no engine."""
    if succeeds(["docker", "compose", "version"], timeout=ANSWER_SECONDS):
        return dict(os.environ)
    unpacked()
    return {**os.environ, **private_environment()}


def unpacked() -> Path:
    """The folder of the private engine's programs, which need not run."""
    _require_root_on_debian()
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock(GATE_LOCK, fcntl.LOCK_EX):
        _unpack()
    return PROGRAMS


def private_environment() -> dict[str, str]:
    """The variables that lead a process to the private engine."""
    return {
        "PATH": f"{PROGRAMS / 'bin'}:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{SOCKET}",
        "DOCKER_CONFIG": str(PROGRAMS / "config"),
    }


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """The environment of a process that wants Docker; an engine answers there for as long as the context lasts.

    Raises:
        OpsError: none answers and a private one can't be started.
    """
    if answers():
        yield dict(os.environ)
        return
    with _user():
        yield {**os.environ, **private_environment()}


def host_process() -> int:
    """A process that sees the mounts that the engine sees: the private engine, or this one where another answers."""
    return _engine_pid() or os.getpid()


def start() -> bool:
    """Start the private engine and leave it running; False where an engine answers already."""
    if answers():
        return False
    with _user():
        KEPT_FILE.touch()
    return True


def stop() -> bool:
    """Stop this project's private engine; False where none runs.

    Raises:
        OpsError: other processes use it.
    """
    if not RUN.exists():
        return False
    with _lock(GATE_LOCK, fcntl.LOCK_EX), open(USERS_LOCK, "a") as users:
        if _owner() != PROJECT:
            return False
        if not _try_lock(users, fcntl.LOCK_EX):
            raise OpsError("The private engine is in use; it stops with its last user.")
        KEPT_FILE.unlink(missing_ok=True)
        _stop()
    return True


@contextmanager
def _user() -> Iterator[None]:
    """Be counted as a user of the private engine, which the first one starts and the last one stops."""
    _require_root_on_debian()
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(USERS_LOCK, "a") as users:
        _join(users)
        try:
            yield
        finally:
            with _lock(GATE_LOCK, fcntl.LOCK_EX):
                fcntl.flock(users, fcntl.LOCK_UN)
                if not KEPT_FILE.exists() and _try_lock(users, fcntl.LOCK_EX):
                    _stop()


def _join(users: IO[str]) -> None:
    """Take a share of `users` with this project's engine running, waiting while another checkout uses its own."""
    deadline = time.monotonic() + QUEUE_SECONDS
    waiting = False
    while True:
        with _lock(GATE_LOCK, fcntl.LOCK_EX):
            if _owner() == PROJECT and answers(private_environment()):
                fcntl.flock(users, fcntl.LOCK_SH)
                return
            if not (_owner() not in (None, PROJECT) and KEPT_FILE.exists()) and _try_lock(users, fcntl.LOCK_EX):
                _stop()  # what an interrupted run may have left
                _install_tools()
                _unpack()
                _start()
                fcntl.flock(users, fcntl.LOCK_SH)
                return
            owner = _owner()
        if time.monotonic() > deadline:
            raise OpsError(f"The private engine of {owner} is still in use; stop it there: python3 -m tests.rig stop")
        if not waiting:
            log.info("    waiting for the private engine of %s to end (there: python3 -m tests.rig stop)", owner)
            waiting = True
        time.sleep(1)


def _require_root_on_debian() -> None:
    if os.geteuid() != 0 or release()[0] < MINIMUM_DEBIAN:
        raise OpsError(
            "No Docker engine with Compose answers. Start one; or, on Debian 12 or newer,"
            " run this as root and a private engine is unpacked from Debian packages."
        )


def _install_tools() -> None:
    """What the engine calls on the machine itself, and the stand-ins' builder."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        with step(f"Installing {', '.join(missing)}"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            run(["apt-get", "update", "-qq"], environment)
            run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing], environment)


def _unpack() -> None:
    """Put the engine's programs into `.stack/engine`, once; they appear complete or not at all."""
    if PROGRAMS.exists():
        return
    with step(f"Unpacking a private Docker engine from Debian packages into {PROGRAMS}"):
        partial = PROGRAMS.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for suite, packages in ((SUITE, PACKAGES), (release()[1], (RUNTIME,))):
            for package in Apt(suite, HOME).download(list(packages)):
                run(["dpkg-deb", "--extract", str(package), str(partial)])
                package.unlink()
        for folder in ("bin", "config/cli-plugins"):
            (partial / folder).mkdir(parents=True)
        for program in ("dockerd", "docker-proxy", "runc"):
            (partial / "bin" / program).symlink_to(Path("../usr/sbin") / program)
        for program in ("docker", "containerd", "containerd-shim-runc-v2"):
            (partial / "bin" / program).symlink_to(Path("../usr/bin") / program)
        (partial / "bin/docker-init").symlink_to("../usr/bin/tini-static")
        for plugin in (partial / "usr/libexec/docker/cli-plugins").iterdir():
            (partial / "config/cli-plugins" / plugin.name).symlink_to(PROGRAMS / plugin.relative_to(partial))
        partial.rename(PROGRAMS)


def _start() -> None:
    with step("Starting the private Docker engine"):
        OWNER_FILE.write_text(str(PROJECT))
        packet_filter.remember(RUN)
        settings = {"data-root": str(DATA), "exec-root": str(EXEC), "pidfile": str(PID_FILE)}
        (RUN / "daemon.json").write_text(json.dumps(settings))
        command = ["dockerd", f"--config-file={RUN / 'daemon.json'}", f"--host=unix://{SOCKET}"]
        environment = {**os.environ, **private_environment()}
        # In a mount namespace of its own the engine leaves no mount behind, however it ends. Its / is shared, as with
        # systemd.
        shared = ["sh", "-c", 'mount --make-rshared / && exec "$@"', "sh", *command]
        isolated = ["unshare", "--mount", "--propagation=slave", "--", *shared]
        with open(LOG, "w") as log:
            daemon = subprocess.Popen(
                isolated, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + WAIT_SECONDS
        while not answers(environment):
            if daemon.poll() is not None or time.monotonic() > deadline:
                daemon.kill()
                daemon.wait()
                _stop()
                last = LOG.read_text().splitlines()[-1:]
                raise OpsError(f"The private Docker engine does not start; its log {LOG} ends with: {' '.join(last)}")
            time.sleep(0.2)


def _stop() -> None:
    """Stop whichever private engine runs, and take away what it changed on the machine."""
    pid = _engine_pid()
    if pid is not None:
        with step("Stopping the private Docker engine"):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + WAIT_SECONDS
            while _engine_pid() is not None:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.1)
    packet_filter.restore(RUN)
    for file in (OWNER_FILE, KEPT_FILE, PID_FILE, SOCKET):
        file.unlink(missing_ok=True)
    shutil.rmtree(EXEC, ignore_errors=True)


def _engine_pid() -> int | None:
    """The running private engine's process id; a pid file that outlived its engine names none."""
    try:
        pid = int(PID_FILE.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if f"--host=unix://{SOCKET}".encode() in command else None


def _owner() -> Path | None:
    try:
        return Path(OWNER_FILE.read_text())
    except OSError:
        return None


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, kind)
        yield


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
