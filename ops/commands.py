"""What `make up`, `down`, `status`, ... do, the same in both modes. Standard library only, for Docker mode."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from ops import backup, health, remote_write, rolling, secrets, shell
from ops.console import confirm, log
from ops.errors import OpsError
from ops.paths import PROJECT, locked
from ops.settings import LINKS
from ops.stack import Stack

NOTHING_RUNS = "Nothing runs; `make up` starts it."
NO_DATABASE = "PostgreSQL does not run; `make up` starts it."

RELOAD_TIMEOUT = 60.0  # seconds for a busy server to reload
SETTLED = 5.0  # seconds after which a server that had refused before has done so again: nothing else shows it


def up(stack: Stack) -> None:
    """Start everything and wait until it is healthy.

    If it runs already, start what does not, and reload the configuration.
    """
    with only_one(stack):
        start(stack)


def start(stack: Stack) -> None:
    """`up`, for a caller that has the lock.

    Raises:
        OpsError: a restore was interrupted, or a part does not become healthy.
    """
    backup.clear_up(stack)
    remote_write.check(stack.settings)
    stack.check()
    if warning := _without_secrets(stack):
        log.warning(warning)
    secrets.make(stack.settings.folder("SECRETS_DIR"))
    already = stack.start()
    health.wait_until_healthy(stack)
    if already:
        _reload(stack)
    print("\nEverything is healthy.")
    for state in stack.states():
        if state.address.startswith("http"):
            print(f"  {state.name:<19}{state.address}")
    _print_links(stack)
    for store, problem in health.first_samples(stack).items():
        print(f"Samples also go to {store}{f', which {problem}: see `make status`' if problem else ''}.")
    for note in stack.notes():
        print(note)
    print("Next: `make loadtest` puts load on it, `make status` shows its health, `make down` stops it.")


def pull(stack: Stack) -> None:
    """Fetch upstream's images, or the pinned releases, again."""
    stack.fetch()
    print("`make up` starts them.")


def down(stack: Stack) -> None:
    """Stop everything; the data are kept."""
    with only_one(stack):
        if stack.stop():
            print(f"Stopped. The data are kept in {stack.location}; `make clean` removes them.")
        else:
            print("Nothing is running.")


def status(stack: Stack) -> None:
    """Print the health of every part.

    Raises:
        OpsError: a part is unhealthy.
    """
    states = stack.states()
    if not states:
        raise OpsError(NOTHING_RUNS)
    print(f"{'SERVER':<19}{'PROCESS':<36}{'HEALTH':<11}ADDRESS")
    for state in states:
        verdict = "unhealthy" if state.problem else "healthy"
        print(f"{state.name:<19}{state.process:<36}{verdict:<11}{state.address}".rstrip())
        if state.problem:
            print(f"{'':<19}{state.problem}")
    print(f"\n{'TARGET':<19}HEALTH (as Prometheus sees it)")
    targets = health.first_scrapes(stack)
    for job, seen in sorted(targets.items()):
        print(f"{job:<19}{seen}")
    if not targets:
        print("Prometheus does not answer, or has not scraped yet.")
    stores = health.stores(stack)
    if stores:
        print("\nSAMPLES ALSO GO TO")
    for store, problem in stores.items():
        print(f"{store} {problem or ''}".rstrip())
    _print_links(stack)
    for note in stack.notes():
        print(f"\n{note}")
    unhealthy = [state.name for state in states if state.problem]
    unhealthy += [job for job, seen in targets.items() if seen != "up"] if targets else ["prometheus' targets"]
    unhealthy += ["remote write"] if any(stores.values()) else []
    if unhealthy:
        raise OpsError(f"Unhealthy: {', '.join(dict.fromkeys(unhealthy))}. `make logs SERVICE=...` shows why.")


def _print_links(stack: Stack) -> None:
    """Print the configured base addresses of links in messages."""
    for name in LINKS:
        if address := stack.settings.get(name):
            print(f"Links in messages: {name}={address}")


def logs(stack: Stack, server: str, follow: str) -> None:
    """Replace this process by a program that shows the log of one server, or of all."""
    lines = (100 if server else 15) if sys.stdout.isatty() else None  # complete, for `| grep`
    command = stack.log_command(server, lines, bool(follow))
    sys.stdout.flush()
    os.execvpe(command[0], command, stack.environment)


def psql(stack: Stack) -> None:
    """Replace this process by psql, interactive or with a script on standard input, which stops at its first error."""
    require_database(stack)
    terminal = sys.stdin.isatty()
    # No history file: statements may hold personal data.
    options = ("--no-psqlrc", "--set=HISTFILE=/dev/null", *(() if terminal else ("--set=ON_ERROR_STOP=1",)))
    command = stack.client("psql", *options, terminal=terminal)
    os.execvpe(command[0], command, stack.environment)


def check_config(stack: Stack) -> int:
    """Check the files, and what this machine must have for them: the receivers' secrets, the store that is written to.

    Returns:
        The exit code of the servers' own checker that fails first, else 0.

    Raises:
        OpsError: a receiver in use has no secret, or the store does not take samples.
    """
    if code := check_files(stack):
        return code
    _require_receivers(stack)
    remote_write.check(stack.settings)
    return 0


def check_files(stack: Stack) -> int:
    """Run the servers' own checkers, which need no secrets: `make lint` on any machine.

    Returns:
        The exit code of the first one that fails, else 0.
    """
    rules = sorted(f"rules/{file.name}" for file in (PROJECT / "prometheus" / "rules").glob("*.yml"))
    for command in (
        stack.tool("prometheus", "promtool", "check", "config", "--syntax-only", "prometheus.yml"),
        stack.tool("prometheus", "promtool", "check", "rules", "--lint=all", "--lint-fatal", *rules),
        stack.tool("alertmanager", "amtool", "check-config", "alertmanager.yml"),
    ):
        sys.stdout.flush()
        if code := subprocess.run(command, env=stack.environment).returncode:
            return code
    return 0


def _require_receivers(stack: Stack) -> None:
    """Look for the secrets of the receivers, which amtool does not.

    Raises:
        OpsError: a receiver in use has no secret; nothing would arrive.
    """
    if problem := _without_secrets(stack):
        raise OpsError(problem)


def _without_secrets(stack: Stack) -> str:
    """A sentence if receivers in use have no secret."""
    text = re.sub(r"#.*", "", (PROJECT / "alertmanager" / "alertmanager.yml").read_text())
    lacking = lacking_secrets(text, stack.settings.folder("SECRETS_DIR") / "alertmanager")
    if not lacking:
        return ""
    return f"alertmanager.yml sends alerts to receivers whose secrets are missing or empty: {', '.join(lacking)}."


def lacking_secrets(config: str, folder: Path) -> list[str]:
    """The secret files, which should be in `folder`, of the receivers that the routes of an Alertmanager name.

    One that holds nothing but blanks lacks, too: Alertmanager starts with it, and each notification would fail.
    """
    routed = set(re.findall(r"""\breceiver:\s*["']?([\w-]+)""", config))
    general, *receivers = re.split(r"""^\s*- \{?name:\s*["']?(?=[\w-])""", config, flags=re.MULTILINE)
    mail = re.findall(r"smtp_\w+_file:\s*secrets/([\w.-]+)", general)
    wanted: list[str] = []
    shared: dict[str, list[str]] = {}
    for one in receivers:
        names = re.findall(r"_file:\s*secrets/([\w.-]+)", one) + (mail if "email_configs:" in one else [])
        shared |= dict.fromkeys(re.findall(r"&(\w+)", one), names)  # a part that another receiver has as well: *slack
        if re.split(r"[^\w-]", one)[0] in routed:
            wanted += names + [name for part in re.findall(r"\*(\w+)", one) for name in shared.get(part, ())]
    files = [folder / name for name in dict.fromkeys(wanted)]
    return [str(file) for file in files if not (file.is_file() and file.read_bytes().strip())]


def reload(stack: Stack) -> None:
    """Reload the configuration of Prometheus and Alertmanager.

    Raises:
        OpsError: one of them rejects it.
    """
    if not stack.states():
        raise OpsError(NOTHING_RUNS)
    _require_receivers(stack)
    remote_write.check(stack.settings)
    _reload(stack)


def restart(stack: Stack) -> None:
    """Replace the service's replicas one after the other, by ones with the present code and settings."""
    with only_one(stack):
        rolling.restart(stack)


def clean(stack: Stack, confirmed: str) -> None:
    """Stop everything and remove the data; secrets, backups and downloads are kept."""
    confirm(f"Remove all data of the stack in {stack.location}?", bool(confirmed))
    with only_one(stack):
        stack.stop()
        stack.remove()
        backup.interrupted(stack).unlink(missing_ok=True)
    print("Removed.")


def grafana_password(stack: Stack) -> None:
    """Set Grafana's administrator password to the one in the secrets, which is created if missing."""
    command, environment = stack.grafana_cli("admin", "reset-admin-password", "--password-from-stdin")
    folder = stack.settings.folder("SECRETS_DIR")
    secrets.make(folder)
    file = folder / "grafana_admin_password"
    shell.feed("Grafana", command, io.BytesIO(file.read_bytes() + b"\n"), environment, PROJECT)
    print(f"Grafana's user admin has the password in {file} now.")


def make_backup(stack: Stack) -> None:
    require_database(stack)
    with only_one(stack):
        backup.backup(stack, stack.settings.folder("BACKUPS_DIR"))
    if stack.settings.get(remote_write.RETENTION):
        print("It does not contain the data of VictoriaMetrics: docs/remote-write.md describes how to copy that.")


def restore(stack: Stack, archive: str, confirmed: str) -> None:
    with only_one(stack):
        backup.restore(stack, archive, bool(confirmed), stack.settings.folder("BACKUPS_DIR"), lambda: start(stack))


def require_database(stack: Stack) -> None:
    """For commands that need the database.

    Raises:
        OpsError: PostgreSQL doesn't run.
    """
    if not any(state.name == "postgres" and not state.dead for state in stack.states()):
        raise OpsError(NO_DATABASE)


def only_one(stack: Stack) -> AbstractContextManager[None]:
    """One command that starts or stops something at a time; a second one waits."""
    return locked(stack.settings.folder("SIGHTLINE_STATE") / "lock")


def _reload(stack: Stack) -> None:
    stack.write_configs()
    for name in stack.reloadable():
        taken_before, loaded_before = _loaded(stack, name)
        stack.hang_up(name)
        deadline = time.monotonic() + (RELOAD_TIMEOUT if taken_before else SETTLED)
        while (state := _loaded(stack, name))[1] == loaded_before:
            if (taken_before and not state[0]) or time.monotonic() > deadline:
                raise OpsError(
                    f"{name} rejects its configuration and keeps the previous one;"
                    f" `make logs SERVICE={name}` shows why."
                )
            time.sleep(0.1)
        print(f"  {name:<19}configuration reloaded")


def _loaded(stack: Stack, name: str) -> tuple[bool, str]:
    """Whether a server's last configuration was taken, and when one was."""
    kind = name.partition("-")[0]
    facts = dict(re.findall(rf"^{kind}_config_last_reload_(\w+) (\S+)$", stack.ask(name, "/metrics"), re.MULTILINE))
    return facts.get("successful") == "1", facts.get("success_timestamp_seconds", "")
