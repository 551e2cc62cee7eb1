"""The load test in containers: as many workers as wanted, and their numbers in Prometheus."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ops.paths import PROJECT
from tests.ops.docker.conftest import LOCUST, UP_SECONDS, Stack
from tests.running import default_signals, wait_until

pytestmark = pytest.mark.stack

WORKERS = 2
# docs/loadtest.md: how to have Locust's page and workers without `make`, and how to end them.
BY_HAND = re.findall(r"^(docker compose .*)$", (PROJECT / "docs" / "loadtest.md").read_text(), re.MULTILINE)


@pytest.fixture
def page(stack: Stack) -> Iterator[str]:
    """The address of Locust's page, with all workers there."""
    start, end = BY_HAND
    assert f"--scale locust-worker={WORKERS} " in start
    try:
        stack.docker(*start.split()[1:], timeout=2 * UP_SECONDS)
        address = stack.url(LOCUST)
        wait_until(lambda: len(numbers(address)["workers"]) == WORKERS)
        yield address
    finally:
        stack.docker(*end.split()[1:])


def numbers(page: str) -> Any:
    """What Locust's page shows."""
    with urllib.request.urlopen(f"{page}/stats/requests", timeout=60) as answer:
        return json.load(answer)


def test_workers_share_the_load_and_prometheus_counts_it(stack: Stack, page: str) -> None:
    form = urllib.parse.urlencode({"user_count": 10, "spawn_rate": 10}).encode()
    with urllib.request.urlopen(f"{page}/swarm", form, timeout=30) as answer:
        assert json.load(answer)["success"]
    wait_until(lambda: all(worker["user_count"] > 0 for worker in numbers(page)["workers"]))
    wait_until(lambda: stack.prometheus.value("locust_workers") == WORKERS)
    wait_until(lambda: stack.prometheus.value("sum(locust_requests_total)") > 20)
    assert not stack.prometheus.query("locust_failures_total")
    with urllib.request.urlopen(f"{page}/stop", b"", timeout=60) as answer:
        assert json.load(answer)["success"]
    # A second one would come into its way.
    with make_loadtest(stack) as refused:
        _, complaint = refused.communicate(timeout=300)
    assert refused.returncode != 0
    assert "a load test runs in containers already" in complaint


def make_loadtest(stack: Stack, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["make", "loadtest", "MODE=docker", "HOST=", *(f"{name}={value}" for name, value in settings.items())],
        cwd=PROJECT,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=default_signals,
    )


def test_make_loadtest_is_seen_by_prometheus_and_ends_well_by_ctrl_c(stack: Stack) -> None:
    began = time.time()
    with make_loadtest(stack, USERS="6", DURATION="90s", WORKERS=str(WORKERS)) as run:
        try:
            # The former test's users were six, too, for a moment, and its series are found for five minutes.
            new = f"timestamp(locust_requests_total) > {began:.3f}"
            wait_until(lambda: stack.prometheus.value("locust_workers and locust_users == 6") == WORKERS)
            wait_until(lambda: stack.prometheus.value(f"sum(locust_requests_total and {new})") > 20)
        finally:
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does
            output, complaint = run.communicate(timeout=300)
    reports = [file for file in (PROJECT / "loadtest" / "reports").glob("*.html") if file.stat().st_mtime >= began - 1]
    try:
        assert "steady: 6 users for 90 s" in output, complaint
        assert "Verdict: " in output, output
        assert "Waiting for Prometheus to scrape the final numbers." in output, output
        rows = re.findall(r"^([A-Z]+) (/.*?) +(\d+) +\d+ +[\d.]+%", output, re.MULTILINE)
        counted = {(method, name): float(requests) for method, name, requests in rows}
        assert counted["POST", "/users"] == 6
        seen = stack.prometheus.query(
            f"sum by (method, name) (last_over_time(locust_requests_total[{time.time() - began:.0f}s]))"
        )
        assert {(dict(labels)["method"], dict(labels)["name"]): value for labels, value in seen.items()} == counted
        assert len(reports) == 1
        assert "/chat" in reports[0].read_text()
        assert not {LOCUST, "locust-worker"} & stack.containers().keys(), "nothing of it is left"
    finally:
        for report in reports:
            report.unlink()
