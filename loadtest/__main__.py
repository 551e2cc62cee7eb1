"""`python -m loadtest`: a bounded load test with progress and a verdict; `--ui` opens Locust's web page instead.

The users are processes on this machine; docker.py runs them in containers, beside a stack in Docker.

Settings are environment variables (settings.py). Exit code 0: every threshold was met; 1: one was missed, or the test
could not run.
"""

import argparse
import os
import sys
from http.client import HTTPException
from pathlib import Path

from loadtest.launch import OPTIONS, announce, announce_page
from loadtest.settings import Settings
from loadtest.verdict import load_thresholds
from ops import http, ports
from ops import settings as ops_settings
from ops.errors import OpsError, refusal

HERE = Path(__file__).parent
OURS = ("LOCUST_PORT", "LOCUST_METRICS_PORT", "LOCUST_METRICS_HOST")
PORTS = ("APP_PORT", "LOCUST_PORT", "LOCUST_METRICS_PORT")


def main() -> None:
    parser = argparse.ArgumentParser(prog="loadtest", description="Put load on the service.")
    parser.add_argument("--ui", action="store_true", help="Locust's web page instead of a bounded run")
    arguments = parser.parse_args()
    made = ops_settings.load()
    os.environ.update({name: made.get(name) for name in PORTS})  # the ports that `make up` uses
    settings = Settings.from_environment()
    load_thresholds()
    if arguments.ui:
        ports.check({"LOCUST_PORT": settings.ui_port})
    try:
        with http.get(f"{settings.host}/healthz", 5):  # without proxies, as Locust itself
            pass
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise OpsError(
            f"no healthy service at {settings.host} ({reason}). `make up` starts it; HOST names another."
        ) from None
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", settings.host, *OPTIONS]
    if settings.workers > 1:
        command += ["--processes", str(settings.workers)]
    if arguments.ui:
        command += ["--web-host", "127.0.0.1", "--web-port", str(settings.ui_port)]
        announce_page(f"http://127.0.0.1:{settings.ui_port}")
    else:
        report = announce(settings, settings.host)
        command += ["--headless", "--html", str(report)]
        os.environ["LOADTEST_REPORT"] = os.path.relpath(report)  # for its last line
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
