"""The load test of `python -m loadtest` where the stack runs in containers.

It runs as services of the Compose file, so that Prometheus can scrape Locust. Standard library only: no
package has to be installed for it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.launch import OPTIONS, REPORTS, announce, announce_page
from loadtest.settings import Settings
from ops import ports
from ops.docker import ComposeStack
from ops.errors import OpsError, refusal
from ops.shell import run, succeeds

PROFILE = "--profile=load"
MASTER, WORKER = "locust", "locust-worker"


def main(stack: ComposeStack, page: bool) -> int:
    """Run a bounded load test, or open Locust's page; the exit code."""
    try:
        return _run(stack, page)
    except (OpsError, ValueError) as error:
        raise OpsError(f"loadtest: {error}") from error
    except OSError as error:
        raise OpsError(f"loadtest: {refusal(error)}") from error
    except KeyboardInterrupt:
        raise OpsError("loadtest: interrupted before the test started") from None


def _run(stack: ComposeStack, page: bool) -> int:
    settings = Settings.from_environment()
    found = stack.containers()
    if not any(container["Service"] == "app" and container["Health"] == "healthy" for container in found):
        raise OpsError("no healthy service in Docker. `make up` starts it; HOST= selects another one.")
    if others := [container["Name"] for container in found if container["Service"] in (MASTER, WORKER)]:
        raise OpsError(f"a load test runs in containers already; `docker rm --force {' '.join(others)}` ends it.")
    if page:
        _require_page(stack)
    stack.pull_missing(load_test=True)
    services = (MASTER,) if settings.workers == 1 else (MASTER, WORKER)
    stack.compose(PROFILE, "build", "--quiet", *services)
    container = f"{stack.project}-loadtest"
    with _workers(settings.workers, stack):
        expected = ["--master", f"--expect-workers={settings.workers}"] if settings.workers > 1 else []
        if page:
            return _locust(container, ["--service-ports"], expected, stack)
        return _headless(container, settings, expected, stack)


def _require_page(stack: ComposeStack) -> None:
    """Check that Locust's web page can be opened.

    Raises:
        OpsError: it has no port, or another program has it.
    """
    published = [str(one.get("published", "")) for one in stack.config["services"].get(MASTER, {}).get("ports") or ()]
    if not published:
        raise OpsError("Locust's web page has no port: your override removes `ports` of locust.")
    if (port := stack.settings.get("LOCUST_PORT")) in published:
        ports.check({"LOCUST_PORT": int(port)})


def _headless(container: str, settings: Settings, options: list[str], stack: ComposeStack) -> int:
    report = announce(settings, "the stack's service")
    # The container's user is unknown on this machine, so it needs a world-writable folder; its parent is private to us.
    with tempfile.TemporaryDirectory(dir=REPORTS) as private:
        folder = Path(private) / "report"
        folder.mkdir()
        folder.chmod(0o777)
        options = [*options, "--headless", "--html=/report/report.html"]
        code = _locust(container, [f"--volume={folder}:/report"], options, stack)
        if (folder / "report.html").exists():
            shutil.copyfile(folder / "report.html", report)
            print(f"Report: {os.path.relpath(report)}")
    return code


def _locust(container: str, run_options: list[str], options: list[str], stack: ComposeStack) -> int:
    """Run Locust under the name that Prometheus and the workers resolve, and show its output.

    Ctrl-C is passed on, so that Locust shuts down gracefully and writes its report. Compose does not do it.

    Returns:
        Locust's exit code.
    """
    start = [PROFILE, "run", "--detach", f"--name={container}", "--no-deps", "--use-aliases", *run_options, MASTER]
    stop = ["docker", "kill", "--signal=INT", container]
    before = signal.getsignal(signal.SIGINT)
    try:
        stack.compose(*start, *OPTIONS, *options)
        signal.signal(signal.SIGINT, lambda *_: succeeds(stop))
        for one in stack.containers() if "--service-ports" in run_options else ():
            if one["Name"] == container:
                announce_page(stack.page(one))
        follow = ["docker", "logs", "--follow", container]  # in a session of its own, which Ctrl-C does not reach
        subprocess.run(follow, env=stack.environment, start_new_session=True)  # noqa: S603
        return int(run(["docker", "wait", container], stack.environment))
    finally:
        signal.signal(signal.SIGINT, before)
        succeeds(["docker", "rm", "--force", container], stack.environment)  # none where Ctrl-C came early


@contextmanager
def _workers(count: int, stack: ComposeStack) -> Iterator[None]:
    """Run the worker containers, if more than one is wanted."""
    if count == 1:
        yield
        return
    try:
        stack.compose(PROFILE, "up", "--detach", "--no-build", "--no-deps", f"--scale={WORKER}={count}", WORKER)
        yield
    finally:
        stack.compose(PROFILE, "rm", "--stop", "--force", WORKER)
