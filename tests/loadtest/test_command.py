"""`python -m loadtest` when there is nothing to measure."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from loadtest import launch
from ops.paths import PROJECT
from tests.running import free_port, wait_until, web_server


@dataclass(frozen=True)
class Service:
    url: str
    asked: threading.Event


@pytest.fixture
def hanging() -> Iterator[Service]:
    """A service that is healthy, as it says, and answers nothing else that it is asked."""
    asked, over = threading.Event(), threading.Event()

    class Hanging(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/healthz":
                asked.set()
                over.wait()
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with web_server(Hanging) as url:
        yield Service(url, asked)
        over.set()


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.attack("a load test whose users fail")
def test_a_run_that_began_gets_a_verdict_even_if_no_request_ended(
    hanging: Service, begun: bool, tmp_path: Path
) -> None:
    ports = {"LOCUST_PORT": str(free_port()), "LOCUST_METRICS_PORT": str(free_port())}
    page = f"http://127.0.0.1:{ports['LOCUST_PORT']}"
    said = tmp_path / "said"
    # What Locust would take options from, by itself: none of it may start a run, or lead it elsewhere.
    for file in (".locust.conf", "locust.conf"):
        (tmp_path / file).write_text("autostart = true\nhost = http://127.0.0.1:9\n")
    (tmp_path / "pyproject.toml").write_text("[tool.locust]\nautostart = true\n")
    left_over = {"LOCUST_HOST": "http://127.0.0.1:9", "LOCUST_AUTOSTART": "true", "HOME": str(tmp_path)}
    with said.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "--ui"],
            env={**os.environ, "WORKERS": "1", **ports, "HOST": hanging.url, **left_over, "PYTHONPATH": str(PROJECT)},
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: urllib.request.urlopen(page, timeout=60).status == 200)
        if begun:
            form = urllib.parse.urlencode({"user_count": 1, "spawn_rate": 1}).encode()
            urllib.request.urlopen(f"{page}/swarm", form, timeout=60).close()
            assert hanging.asked.wait(300)
            run.terminate()
            wait_until(lambda: "Verdict: FAILED, no request completed." in said.read_text())
        else:
            run.terminate()
            assert run.wait(300) == 0, said.read_text()
            assert "Verdict" not in said.read_text()
    finally:
        run.kill()  # it would wait for its users, and they for their response
        run.wait()


@pytest.mark.attack("a load test whose users fail")
def test_a_run_with_closed_output_still_gets_its_verdict() -> None:
    """It is in the exit code; lines that can't be printed were tracebacks, and the first ended the progress."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    given = {"DURATION": "10s", "USERS": "2", "LOCUST_METRICS_PORT": str(free_port())}
    command = f'set -o pipefail; "{sys.executable}" -m loadtest | head -1'
    with web_server(Refusing) as url:
        environment = {**os.environ, **given, "HOST": url}
        run = subprocess.run(["bash", "-c", command], env=environment, cwd=PROJECT, capture_output=True, text=True)
    report = PROJECT / run.stdout.strip().rpartition("report: ")[2]
    try:
        assert (run.returncode, run.stderr) == (1, "")
        assert report.is_file()
    finally:
        if report.is_file():
            report.unlink()


@pytest.mark.attack("another site's request to Locust's page", tried=33)
def test_no_other_site_starts_load_or_reads_the_page(hanging: Service, tmp_path: Path) -> None:
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    form = {"user_count": "1", "spawn_rate": "1", "host": "http://127.0.0.1:9"}
    with (tmp_path / "said").open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "--ui"],
            env={**os.environ, "LOCUST_PORT": str(port), "LOCUST_METRICS_PORT": str(free_port()), "HOST": hanging.url},
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: urllib.request.urlopen(page, timeout=60).status == 200)
        for path in ("swarm", "stop", "stats/reset", "user"):
            for headers in (
                {"Origin": "http://elsewhere.example"},
                {"Origin": "null"},
                {"Origin": "http://localhost"},
                {"Origin": f"http://127.0.0.1:{port}.elsewhere.example"},
                {"Origin": f"http://127.0.0.1:{port + 1}"},
                {"Host": f"rebound.example:{port}", "Origin": f"http://rebound.example:{port}"},
                {"Host": f"127.0.0.2:{port}", "Origin": f"http://127.0.0.2:{port}"},
                {"Host": f"localhost.rebound.example:{port}"},
            ):
                assert httpx2.post(f"{page}/{path}", data=form, headers=headers, timeout=30).status_code == 403, headers
        assert (
            httpx2.get(f"{page}/stats/requests", headers={"Host": f"rebound.example:{port}"}, timeout=60).status_code
            == 403
        )
        assert httpx2.get(f"{page}/stats/requests", timeout=30).json()["state"] == "ready"
        assert not hanging.asked.is_set()
        own = {"Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"}
        assert httpx2.get(page, headers=own, timeout=30).status_code == 200
    finally:
        run.kill()
        run.wait()


def test_a_folder_of_reports_that_cannot_be_had_is_named(
    hanging: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = tmp_path / "reports"
    reports.touch()
    monkeypatch.setattr(launch, "REPORTS", reports)
    monkeypatch.setattr(sys, "argv", ["loadtest"])
    for name, value in {"HOST": hanging.url, "APP_PORT": "1", "LOCUST_PORT": "1", "LOCUST_METRICS_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as refused:
        runpy.run_module("loadtest", run_name="__main__")
    assert refused.value.code == f"loadtest: {reports}: File exists"
