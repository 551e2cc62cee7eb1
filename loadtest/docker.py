"""`python3 -m loadtest.docker`: the load test of `python -m loadtest` where the stack runs in containers.

It runs as services of the Compose file, so that Prometheus can scrape Locust. Standard library only: no
package has to be installed for it.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loadtest.launch import OPTIONS, REPORTS, announce, announce_page
from loadtest.settings import Settings
from native import ports
from native.errors import NativeError
from stack import compose
from stack.programs import explanation, run, succeeds

PROFILE = "--profile=load"
MASTER, WORKER = "locust", "locust-worker"


def main() -> int:
    parser = argparse.ArgumentParser(prog="loadtest", description="Put load on the service, from containers.")
    parser.add_argument("--ui", action="store_true", help="Locust's web page instead of a bounded run")
    page = parser.parse_args().ui
    settings = Settings.from_environment()
    environment = compose.environment()
    found = compose.containers(environment)
    if not any(container["Service"] == "app" and container["Health"] == "healthy" for container in found):
        raise NativeError("no healthy service in Docker. `make up` starts it; HOST names another.")
    if others := [container["Name"] for container in found if container["Service"] in (MASTER, WORKER)]:
        raise NativeError(f"a load test runs in containers already; `docker rm --force {' '.join(others)}` ends it.")
    config = compose.config(environment, PROFILE)
    port = compose.published(config)[MASTER]
    if page:
        ports.check({"LOCUST_PORT": port})
    compose.pull_missing(environment, load_test=True)
    services = (MASTER,) if settings.workers == 1 else (MASTER, WORKER)
    compose.call([PROFILE, "build", "--quiet", *services], environment)
    container = f"{config['name']}-loadtest"
    with _workers(settings.workers, environment):
        expected = ["--master", f"--expect-workers={settings.workers}"] if settings.workers > 1 else []
        if page:
            announce_page(port)
            return _locust(container, ["--service-ports"], expected, environment)
        return _headless(container, settings, expected, environment)


def _headless(container: str, settings: Settings, options: list[str], environment: Mapping[str, str]) -> int:
    report = announce(settings, "the stack's service")
    # The container's user is unknown on this machine, so it needs a world-writable folder; its parent is private to us.
    with tempfile.TemporaryDirectory(dir=REPORTS) as private:
        folder = Path(private) / "report"
        folder.mkdir()
        folder.chmod(0o777)
        options = [*options, "--headless", "--html=/report/report.html"]
        code = _locust(container, [f"--volume={folder}:/report"], options, environment)
        if (folder / "report.html").exists():
            shutil.copyfile(folder / "report.html", report)
    return code


def _locust(container: str, run_options: list[str], options: list[str], environment: Mapping[str, str]) -> int:
    """Run Locust under the name that Prometheus and the workers resolve, and show its output.

    Ctrl-C is passed on, so that Locust shuts down gracefully and writes its report. Compose does not do it.

    Returns:
        Locust's exit code.
    """
    start = [PROFILE, "run", "--detach", f"--name={container}", "--no-deps", "--use-aliases", *run_options, MASTER]
    stop = ["docker", "kill", "--signal=INT", container]
    before = signal.getsignal(signal.SIGINT)
    try:
        compose.call([*start, *OPTIONS, *options], environment)
        signal.signal(signal.SIGINT, lambda *_: succeeds(stop))
        follow = ["docker", "logs", "--follow", container]  # in a session of its own, which Ctrl-C does not reach
        subprocess.run(follow, env=environment, start_new_session=True)  # noqa: S603
        return int(run(["docker", "wait", container], environment))
    finally:
        signal.signal(signal.SIGINT, before)
        succeeds(["docker", "rm", "--force", container], environment)  # where Ctrl-C came early, there may be none


@contextmanager
def _workers(count: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Run the worker containers, if more than one is wanted."""
    if count == 1:
        yield
        return
    try:
        compose.call(
            [PROFILE, "up", "--detach", "--no-build", "--no-deps", f"--scale={WORKER}={count}", WORKER], environment
        )
        yield
    finally:
        compose.call([PROFILE, "rm", "--stop", "--force", WORKER], environment)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NativeError, ValueError) as error:
        sys.exit(f"loadtest: {error}")
    except OSError as error:
        sys.exit(f"loadtest: {explanation(error)}")
    except KeyboardInterrupt:
        sys.exit("loadtest: interrupted before the test started")
