"""Clients of PostgreSQL in its container, as its superuser."""

from __future__ import annotations

import os
import sys

from native.errors import NativeError
from native.psql import NO_DATABASE, options
from stack import compose

# PostgreSQL's programs read the password from a file that nobody else can read; it is no argument and no variable.
CLIENT = r"""
umask 077
file=$(mktemp)
trap 'rm -f "$file"' EXIT
trap : INT
sed 's/[:\\]/\\&/g; s/^/*:*:*:postgres:/' /run/secrets/postgres_password > "$file"
PGPASSFILE=$file "$@" --username=postgres --no-password --dbname=sightline
"""


def client(*command: str, terminal: bool = False) -> list[str]:
    """The command line that runs a client in the running container; `terminal` for one that a person types into."""
    return ["docker", "compose", "exec", *([] if terminal else ["-T"]), "postgres", "sh", "-ec", CLIENT, "sh", *command]


def require() -> None:
    """Raises NativeError where PostgreSQL does not run."""
    if "postgres" not in compose.running(compose.environment()):
        raise NativeError(NO_DATABASE)


def psql() -> None:
    """Hand over to psql: for a person who types, or for what comes in."""
    require()
    terminal = sys.stdin.isatty()
    command = client("psql", *options(terminal), terminal=terminal)
    os.execvpe("docker", command, compose.environment())
