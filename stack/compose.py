"""What `make up`, `down`, `status`, `logs` and `clean` do where a Docker engine answers."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from native import backup, ports, reloading, secrets
from native.asking import confirm
from native.errors import NativeError
from native.targets import targets
from stack import images
from stack.paths import PROJECT
from stack.programs import run
from stack.steps import step

SETTINGS = PROJECT / ".env"
HEALTHY_SECONDS = 180
TARGETS_SECONDS = 90  # a few scrape intervals
PAGES = {"app": "/"}
EVERYTHING = "--profile=*"  # the services of profiles, too


def make_secrets() -> list[str]:
    """Make the secrets that are missing and note in `.env` where they are; returns the names of the new ones."""
    made = secrets.make(secrets_folder())
    settings = SETTINGS.read_text() if SETTINGS.exists() else ""
    if not os.environ.get("SECRETS_DIR") and not setting("SECRETS_DIR", settings):
        gap = "" if not settings or settings.endswith("\n") else "\n"
        SETTINGS.write_text(f"{settings}{gap}SECRETS_DIR=./secrets\n")
    return made


def check(client: Mapping[str, str]) -> None:
    """Raises NativeError where Compose finds fault with docker-compose.yml."""
    call([EVERYTHING, "config", "--quiet"], {**client, "SECRETS_DIR": str(secrets_folder())})


def up() -> None:
    """Start everything and wait until it is well.

    Raises NativeError where a port is taken, an image can't be had or a service does not become healthy.
    """
    make_secrets()
    settings = environment()
    complete = config(settings)
    ports_of = published(complete)
    before = containers(settings)
    present = {container["Service"] for container in before}
    ports.check({f"{service.upper()}_PORT": port for service, port in ports_of.items() if service not in present})
    require_readable(mounted(complete))
    pull_missing(settings)
    with step("Building the service's image"):
        call(["build", "--quiet"], settings)
    with step("Starting the services and waiting until they are healthy"):
        try:
            call(["up", "--detach", "--no-build", "--wait", f"--wait-timeout={HEALTHY_SECONDS}"], settings)
        except NativeError as error:
            raise NativeError(f"{error}\n{_last_words(settings)}") from None
    if {container["Service"] for container in before if container["State"] == "running"}.issuperset(reloading.PORTS):
        reload()
    with step("Waiting until Prometheus reaches all its targets"):
        _wait_for_targets(ports_of["prometheus"])
    print("\nEverything is well.")
    for service, port in ports_of.items():
        print(f"  {service:<19}http://localhost:{port}{PAGES.get(service, '')}")
    print("Next: `make loadtest` puts load on it, `make status` shows its health, `make down` stops it.")


def reload() -> None:
    """Have Prometheus and Alertmanager read their configuration again. Raises NativeError where one refuses it."""
    settings = environment()
    for name, port in reloading.PORTS.items():
        # From inside: Docker takes its own `kill` for the end, and would not start a server again that dies later.
        metrics = ["exec", "-T", name, "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/metrics"]
        hang_up = ["exec", "-T", name, "kill", "-HUP", "1"]
        reloading.reload(name, partial(call, metrics, settings), partial(call, hang_up, settings))
        print(f"  {name:<19}has read its configuration again")


def down() -> None:
    """Stop and remove the containers; the data stay in the volumes."""
    call([EVERYTHING, "down", "--remove-orphans"], environment())
    print("Stopped. The data stay in Docker's volumes; `make clean` removes them.")


def status() -> None:
    """Print how everything is. Raises NativeError if something is not well."""
    settings = environment()
    found = containers(settings)
    if not found:
        raise NativeError("Not up: `make up`.")
    ports_of = published(config(settings))
    health = _targets(ports_of["prometheus"])
    print(f"{'SERVICE':<19}{'STATE':<33} ADDRESS")
    for container in found:
        service = container["Service"]
        address = f"http://localhost:{ports_of[service]}" if service in ports_of else ""
        print(f"{service:<19}{container['Status']:<33} {address}")
    print(f"\n{'TARGET':<19}HEALTH (as Prometheus sees it)")
    for job, state in sorted(health.items()):
        print(f"{job:<19}{state}")
    if not health:
        print("Prometheus does not answer.")
    well = all(container["Health"] == "healthy" for container in found) and set(health.values()) == {"up"}
    if not well:
        raise NativeError("Not everything is well; `make logs SERVICE=...` shows why.")


def logs(service: str, follow: bool) -> None:
    """Hand over to `docker compose logs`, of one service or all."""
    lines = "100" if sys.stdout.isatty() else "all"  # `| grep` shall find it wherever it is
    arguments = [f"--tail={lines}", *(["--follow"] if follow else []), *([service] if service else [])]
    os.execvpe("docker", ["docker", "compose", EVERYTHING, "logs", *arguments], environment())


def clean(confirmed: bool) -> None:
    """Stop everything and remove its data and its own images; secrets and upstream images stay."""
    confirm("Remove the stack's containers and all their data?", confirmed)
    call([EVERYTHING, "down", "--remove-orphans", "--volumes", "--rmi=local"], environment())
    print("Removed.")


def pull() -> None:
    """Pull the upstream images that the engine has once more: what a tag names changes when its base gets fixes."""
    settings = environment()
    missing = images.missing(settings)
    reason = images.pull({name: image for name, image in images.upstream().items() if name not in missing}, settings)
    if reason:
        raise NativeError(reason)
    print("`make up` puts them to use.")


def grafana_password() -> None:
    """Make Grafana take the administrator's password in the secrets; a missing one is made."""
    make_secrets()
    file = secrets_folder() / "grafana_admin_password"
    command = ["docker", "compose", "exec", "-T", "grafana", "grafana", "cli", "--homepath", "/usr/share/grafana"]
    command += ["admin", "reset-admin-password", "--password-from-stdin"]
    backup.feed("Grafana", command, io.BytesIO(file.read_bytes() + b"\n"), env=environment(), cwd=PROJECT)
    print(f"Grafana's user admin has the password in {file} now.")


def setting(name: str, settings: str) -> str | None:
    """A setting in the text of `.env`, as Compose and python-dotenv read it: quoted, or up to a space and a #.

    Variables in it, such as `${HOME}`, are not filled in.
    """
    value = r"""(?:'([^'\n]*)'|"([^"\n]*)"|(.*?))"""
    found = re.findall(rf"^[ \t]*(?:export )?{name}[ \t]*=[ \t]*{value}[ \t]*(?:[ \t]#.*)?$", settings, re.MULTILINE)
    return "".join(found[-1]) if found else None


def secrets_folder() -> Path:
    return _folder("SECRETS_DIR", "secrets")


def backups_folder() -> Path:
    return _folder("BACKUPS_DIR", "backups")


def _folder(name: str, default: str) -> Path:
    settings = SETTINGS.read_text() if SETTINGS.exists() else ""
    return PROJECT / (os.environ.get(name) or setting(name, settings) or default)


def environment() -> dict[str, str]:
    """This process' environment, with what Compose can't find out by itself."""
    settings = {**os.environ, "SECRETS_DIR": str(secrets_folder())}
    if not settings.get("CERTIFICATES_DIR") and (folder := images.certificates()):
        settings["CERTIFICATES_DIR"] = str(folder)
    return settings


def _missing(environment: Mapping[str, str], load_test: bool) -> dict[str, str]:
    """The upstream images that the engine lacks; Locust's is for load tests only."""
    return {name: image for name, image in images.missing(environment).items() if load_test or name != "locust"}


def pull_missing(environment: Mapping[str, str], load_test: bool = False) -> None:
    """Have the upstream images. Raises NativeError where one can't be had."""
    reason = images.pull(_missing(environment, load_test), environment)
    if reason:
        raise NativeError(
            f"These images can't be pulled: {', '.join(_missing(environment, load_test).values())}\n{reason}\n"
            "No registry in reach? `make standins` builds stand-ins from Debian packages; then `make up` again."
        )


def _wait_for_targets(port: int) -> None:
    deadline = time.monotonic() + TARGETS_SECONDS
    while not (health := _targets(port)) or set(health.values()) != {"up"}:
        if time.monotonic() > deadline:
            bad = ", ".join(sorted(job for job, state in health.items() if state != "up"))
            raise NativeError(f"Prometheus cannot scrape: {bad or 'anything'}. `make status` shows more.")
        time.sleep(0.5)


def _targets(port: int) -> dict[str, str]:
    return targets(f"http://127.0.0.1:{port}")


def config(environment: Mapping[str, str], *profiles: str) -> dict[str, Any]:
    """docker-compose.yml and all that Compose adds to it, settings filled in; `profiles` are options of Compose's."""
    complete: dict[str, Any] = json.loads(call([*profiles, "config", "--format=json"], environment))
    return complete


def published(config: Mapping[str, Any]) -> dict[str, int]:
    """The port of each service that people can open. Raises NativeError where a setting is no single port."""
    return {
        name: ports.number(f"{name.upper()}_PORT", service["ports"][0]["published"])
        for name, service in config["services"].items()
        if service.get("ports")
    }


def mounted(config: Mapping[str, Any]) -> set[Path]:
    """The files and folders that containers get to read, but for the host's own root."""
    services = config["services"].values()
    volumes = [volume for service in services for volume in service.get("volumes", ()) if volume["type"] == "bind"]
    files = [secret["file"] for secret in config["secrets"].values()]
    return {Path(place) for place in [*(volume["source"] for volume in volumes), *files]} - {Path("/")}


def require_readable(places: Iterable[Path]) -> None:
    """Raises NativeError where a place is closed to others (a strict umask): the containers' users have other ids."""

    def closed(path: Path) -> bool:
        needed = 0o5 if path.is_dir() else 0o4
        return path.exists() and path.stat().st_mode & needed != needed

    def seen(place: Path) -> Iterator[Path]:
        """The place and what is in it, but for what is hidden (an editor's files, say): no server reads that."""
        yield place
        for path in place.rglob("*"):
            if not any(part.startswith(".") for part in path.relative_to(place).parts):
                yield path

    found = [os.path.relpath(place, PROJECT) for place in sorted(places) if any(map(closed, seen(place)))]
    if found:
        raise NativeError(
            f"The containers' users can't read {', '.join(found)}. This lets them: chmod -R go+rX {shlex.join(found)}"
        )


def containers(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What Compose says of each container, running or not."""
    lines = call([EVERYTHING, "ps", "--all", "--format=json"], environment).splitlines()
    return [json.loads(line) for line in lines]


def running(environment: Mapping[str, str]) -> set[str]:
    """The services of which a container runs."""
    return {container["Service"] for container in containers(environment) if container["State"] == "running"}


def _last_words(environment: Mapping[str, str]) -> str:
    """The end of the logs of what is not healthy."""
    unwell = [container["Service"] for container in containers(environment) if container["Health"] != "healthy"]
    return call(["logs", "--no-color", "--tail=5", *unwell], environment)


def call(arguments: list[str], environment: Mapping[str, str]) -> str:
    """What `docker compose` prints. Raises NativeError with its complaint."""
    return run(["docker", "compose", *arguments], environment, cwd=PROJECT)
