"""PostgreSQL's data folder: created on first use, by the same SQL files that the Docker image runs."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ops.errors import OpsError
from ops.paths import PROJECT
from ops.programs import find

INIT = PROJECT / "postgres" / "init"
SUPERUSER_SQL = r"""
SET log_statement = 'none';
\set password `cat "$SECRETS_DIR/postgres_password"`
ALTER ROLE postgres PASSWORD :'password';
"""
START_TIMEOUT = 60.0  # seconds
STOP_TIMEOUT = 60.0
STEP_TIMEOUT = 300.0  # of initdb, and of one script
USER = "sightline-postgres"  # where root starts the stack
PRIVATE_PORT = 5432  # of `private()`: part of its socket's name, nothing listens on TCP


def major(data: Path) -> int | None:
    """The major version of PostgreSQL that made the data folder; None where there is none yet."""
    file = data / "PG_VERSION"
    return int(file.read_text()) if file.exists() else None


def _program(name: str, data: Path) -> str:
    return str(find(name, major=major(data))[name])


def as_owner(*command: str) -> tuple[str, ...]:
    """`command` as PostgreSQL's own user, where it would run as root: PostgreSQL refuses to."""
    if os.geteuid() != 0:
        return command
    user = _user()
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}")
    return ("setpriv", *ids, "--clear-groups", "--no-new-privs", "--", *command)


def own(data: Path) -> None:
    """Make PostgreSQL's user the owner of the folder and of all in it."""
    if os.geteuid() == 0 and data.stat().st_uid != (user := _user()).pw_uid:
        for path in (data, *data.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


@cache
def _user() -> pwd.struct_passwd:
    """A user of its own, created if missing: a process of the data's owner is superuser of the database."""
    for _ in range(2):
        with suppress(KeyError):
            return pwd.getpwnam(USER)
        command = ["useradd", "--system", "--no-create-home", "--shell=/usr/sbin/nologin", USER]
        made = subprocess.run(command, capture_output=True, text=True)
    raise OpsError(f"PostgreSQL can't run as root, and `{' '.join(command)}` failed: {made.stderr.strip()}")


def client_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without libpq's variables: PGHOSTADDR, for example, overrides the host in a client's options."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")}


def initialise(
    data: Path,
    secrets: Path,
    *,
    flags: tuple[str, ...] = (),
    new: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Make the data folder, if there is none, and bring roles, passwords and settings up to date.

    `secrets` holds the files postgres_password, app_db_password and exporter_db_password. Local superuser access is
    for the folder's owner and root alone (checked by the kernel); over TCP everyone needs a password.

    Args:
        new: the major version of PostgreSQL for a folder that is made now; the best that is here unless given.
        environment: of the programs that run meanwhile; this process' own unless given.

    Raises:
        OpsError: the data are of a version of PostgreSQL that is not here.
    """
    initdb = str(find("initdb", major=major(data) or new)["initdb"])  # before anything is touched
    if not (data / "PG_VERSION").exists():
        partial = data.with_name(f"{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        own(partial)
        options = (f"--pgdata={partial}", "--username=postgres", "--encoding=UTF8", "--locale=C", "--data-checksums")
        _run(as_owner(initdb, *options, "--auth-local=peer", "--auth-host=scram-sha-256"), environment)
        (partial / "pg_hba.conf").write_text(
            "local all postgres peer map=owner\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        shutil.rmtree(data, ignore_errors=True)
        partial.rename(data)
    own(data)
    users = {pwd.getpwuid(os.geteuid()).pw_name, pwd.getpwuid(data.stat().st_uid).pw_name}
    (data / "pg_ident.conf").write_text("".join(f"owner {user} postgres\n" for user in sorted(users)))
    with private(data, flags=flags, environment=environment):
        psql = (_program("psql", data), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(data), "-U", "postgres")
        own_environment = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(secrets), "PGDATABASE": "postgres"}
        _run(psql, own_environment, SUPERUSER_SQL)
        for file in sorted(INIT.glob("*.sql")):
            _run((*psql, "-f", str(file)), own_environment)


@contextmanager
def private(data: Path, *, flags: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """PostgreSQL for a while, reachable through a socket in its own folder only."""
    with open(data / "initialise.log", "w") as log:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": data,
            "port": PRIVATE_PORT,
            "logging_collector": "off",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        postgres = as_owner(_program("postgres", data), "-D", str(data), *options, *flags)
        server = subprocess.Popen(postgres, stdout=log, stderr=log, cwd="/", env=environment)
    try:
        _wait_for(server, data)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # "fast": waits for no client
        try:
            server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(server: subprocess.Popen[bytes], data: Path) -> None:
    ready = [_program("pg_isready", data), "--quiet", f"--host={data}", f"--port={PRIVATE_PORT}"]
    deadline = time.monotonic() + START_TIMEOUT
    while subprocess.run(ready, env=client_environment()).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            lines = (data / "initialise.log").read_text(errors="replace").strip().splitlines()
            raise OpsError(f"PostgreSQL does not start: {' '.join(lines[-2:])}")
        time.sleep(0.05)


def _run(command: tuple[str, ...], environment: Mapping[str, str] | None = None, text: str = "") -> None:
    try:
        result = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, cwd="/", timeout=STEP_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise OpsError(f"Setting up PostgreSQL failed: {command[0]} takes longer than {STEP_TIMEOUT:.0f} s.") from None
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        full = [line for line in lines if os.strerror(errno.ENOSPC) in line]  # initdb then lists what it removes
        raise OpsError(f"Setting up PostgreSQL failed: {' '.join((full or lines)[-2:])}")
