"""Check ports before anything starts; a port in use is reported with its setting and the process that uses it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ops.errors import OpsError

HOST = "127.0.0.1"
CONNECT_TIMEOUT = 5.0  # seconds
LISTEN = "0A"  # the state's number in /proc/net/tcp


def number(setting: str, value: str) -> int:
    """The port in the value of `setting`.

    Raises:
        OpsError: the value is no port number.
    """
    if not re.fullmatch(r"[1-9]\d{0,4}", value, re.ASCII) or int(value) > 65535:
        raise OpsError(f"{setting} is '{value}'; it must be a port number from 1 to 65535.")
    return int(value)


def check(
    ports: Mapping[str, int],
    held: Callable[[], Collection[int]] = tuple,
    whose: Callable[[int], str] = lambda port: "",
) -> None:
    """`ports`: setting, or in words what else decides -> port; `held`: asks for the ports that the stack itself has.

    `whose`: names who has a port, where this process can ask more than the operating system.

    Raises:
        OpsError: a port is not available; names each of them on a line.
    """
    problems = []
    for setting, port in ports.items():
        same = [other for other in ports if ports[other] == port]
        if len(same) > 1:
            problem = (
                f"{' and '.join(same)} are {'both' if len(same) == 2 else 'all'} {port}; give each a port of its own."
            )
            if setting == same[0]:
                problems.append(problem)
        # In this order: after a command that was interrupted, servers of the stack may just be starting or ending.
        elif _unavailable(port) and port not in held() and (reason := _unavailable(port, whose)):
            other = f"set {setting} to another one (in .env or as a variable)"
            problems.append(
                f"Port {port} {reason}. Free it, or {other if setting.endswith('_PORT') else f'change {setting}'}."
            )
    if problems:
        raise OpsError("\n".join(problems))


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as client:
        client.settimeout(CONNECT_TIMEOUT)
        return client.connect_ex((HOST, port)) == 0


def _unavailable(port: int, whose: Callable[[int], str] = lambda port: "") -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "needs root"
        except OSError:
            holder = whose(port) or _holder(port)
            return f"is taken by {holder}" if holder else "is taken"
    return None


def _holder(port: int) -> str | None:
    """Who listens on the port, if this user may know."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        lines = Path(table).read_text().splitlines()[1:] if Path(table).exists() else []
        for _, local, _, state, *_, inode in (line.split()[:10] for line in lines):
            if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{inode}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) in inodes for file in (process / "fd").iterdir()):
                name = re.sub(r"[^ -~]", " ", (process / "comm").read_text().strip())
                return f"{name} (process {process.name})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return None
