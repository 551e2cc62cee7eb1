"""`python -m loadtest`: a bounded load test with progress and a verdict; `--ui` opens Locust's web page instead.

The users are processes on this machine; docker.py runs them in containers, beside a stack in Docker. With MASTER they
are on other machines, where `--worker` starts them: this one leads, and has the verdict.

Settings are environment variables (settings.py). Exit code 0: every threshold was met; 1: one was missed, or the test
could not run.
"""

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from loadtest.launch import OPTIONS, announce, announce_page
from loadtest.settings import Settings
from loadtest.verdict import load_thresholds
from ops import http, ports
from ops import settings as ops_settings
from ops.errors import OpsError, refusal

HERE = Path(__file__).parent
OURS = ("LOCUST_PORT", "LOCUST_METRICS_PORT", "LOCUST_METRICS_HOST")
PORTS = ("APP_PORT", "LOCUST_PORT", "LOCUST_METRICS_PORT")
WORKERS_SECONDS = 300  # for the workers of other machines to be there


def main() -> None:
    parser = argparse.ArgumentParser(prog="loadtest", description="Put load on the service.")
    parser.add_argument("--ui", action="store_true", help="Locust's web page instead of a bounded run")
    parser.add_argument("--worker", action="store_true", help="users for the machine that MASTER names")
    arguments = parser.parse_args()
    made = ops_settings.load()
    os.environ.update({name: made.get(name) for name in PORTS})  # the ports that `make up` uses
    settings = Settings.from_environment()
    load_thresholds()
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), *OPTIONS]
    if arguments.worker:
        _run([*command, *_worker(settings)])
    if arguments.ui:
        ports.check({"LOCUST_PORT": settings.ui_port})
    try:
        http.get(f"{settings.host}/healthz", 5)  # without proxies, as Locust itself
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise OpsError(
            f"no healthy service at {settings.host} ({reason}). `make up` starts it; HOST= selects another one."
        ) from None
    command += ["--host", settings.host]
    if settings.master:
        command += _master(settings)
    elif settings.workers > 1:
        command += ["--processes", str(settings.workers)]
    if arguments.ui:
        command += ["--web-host", "127.0.0.1", "--web-port", str(settings.ui_port)]
        announce_page(f"http://127.0.0.1:{settings.ui_port}")
    else:
        report = announce(settings, settings.host)
        command += ["--headless", "--html", str(report)]
        os.environ["LOADTEST_REPORT"] = os.path.relpath(report)  # for its last line
    _run(command)


def _master(settings: Settings) -> list[str]:
    """Options to lead the workers of other machines.

    Raises:
        OpsError: they would put load on themselves.
    """
    if urlsplit(settings.host).hostname in ("localhost", "127.0.0.1", "::1"):
        raise OpsError(f"HOST={settings.host}: with MASTER, give the service's address as the other machines reach it.")
    address = f"{settings.master}:{settings.master_port}"
    print(f"Waiting for {settings.workers} workers: `make loadtest-worker MASTER={address}` elsewhere", flush=True)
    place = ["--master-bind-host", settings.master, "--master-bind-port", str(settings.master_port)]
    wait = ["--expect-workers", str(settings.workers), "--expect-workers-max-wait", str(WORKERS_SECONDS)]
    return ["--master", *place, *wait]


def _worker(settings: Settings) -> list[str]:
    """Options to be the users, in WORKERS processes.

    Raises:
        OpsError: MASTER names no machine, or none that leads a load test.
    """
    address = f"{settings.master}:{settings.master_port}"
    if not settings.master:
        raise OpsError("set MASTER= to the coordinating machine, where `make loadtest MASTER=...` runs.")
    try:
        socket.create_connection((settings.master, settings.master_port), 5).close()
    except OSError as error:
        raise OpsError(
            f"no load test at {address} ({error}). `make loadtest MASTER={address}` starts one there."
        ) from None
    processes = ["--processes", str(settings.workers)] if settings.workers > 1 else []
    return ["--worker", "--master-host", settings.master, "--master-port", str(settings.master_port), *processes]


def _run(command: list[str]) -> NoReturn:
    # Locust takes options from the environment, too, from locust.conf and pyproject.toml where it is started, and from
    # ~/.locust.conf. What is left over there must not lead the load elsewhere, nor change what the verdict is about.
    own = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_") or name in OURS}
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**own, "HOME": os.devnull, "PYTHONPATH": path}
    os.chdir("/")
    os.execve(sys.executable, command, environment)  # noqa: S606  our own interpreter


if __name__ == "__main__":
    try:
        main()
    except (OpsError, ValueError) as error:
        sys.exit(f"loadtest: {error}")
    except OSError as error:
        sys.exit(f"loadtest: {refusal(error)}")
