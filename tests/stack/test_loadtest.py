"""The load test in containers: as many workers as wanted, and their numbers in Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from stack.paths import PROJECT
from tests.servers import wait_until
from tests.stack.conftest import LOCUST, UP_SECONDS, Stack

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
        wait_until(lambda: len(numbers(address)["workers"]) == WORKERS, timeout=60)
        yield address
    finally:
        stack.docker(*end.split()[1:])


def numbers(page: str) -> Any:
    """What Locust's page shows."""
    with urllib.request.urlopen(f"{page}/stats/requests", timeout=10) as answer:
        return json.load(answer)


def test_workers_share_the_load_and_prometheus_counts_it(stack: Stack, page: str) -> None:
    form = urllib.parse.urlencode({"user_count": 10, "spawn_rate": 10}).encode()
    with urllib.request.urlopen(f"{page}/swarm", form, timeout=30) as answer:
        assert json.load(answer)["success"]
    wait_until(lambda: all(worker["user_count"] > 0 for worker in numbers(page)["workers"]), timeout=60)
    wait_until(lambda: stack.prometheus.value("locust_workers") == WORKERS, timeout=60)
    wait_until(lambda: stack.prometheus.value("sum(locust_requests_total)") > 20, timeout=60)
    assert not stack.prometheus.query("locust_failures_total")
    with urllib.request.urlopen(f"{page}/stop", b"", timeout=60) as answer:
        assert json.load(answer)["success"]
    # Nothing that people open was stopped with it, nor does a second one come into its way.
    refused = make_loadtest(stack)
    assert refused.returncode != 0
    assert "one runs in containers already" in refused.stderr


def make_loadtest(stack: Stack, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "loadtest", "MODE=docker", *(f"{name}={value}" for name, value in settings.items())],
        cwd=PROJECT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=2 * UP_SECONDS,
    )


def test_make_loadtest_is_seen_by_prometheus(stack: Stack) -> None:
    began = time.time()
    # Longer than a scrape interval: the first look must fall into the run.
    run = make_loadtest(stack, USERS="6", DURATION="20s", WORKERS=str(WORKERS))
    reports = [file for file in (PROJECT / "loadtest" / "reports").glob("*.html") if file.stat().st_mtime >= began - 1]
    try:
        assert "steady: 6 users for 20 s" in run.stdout, run.stderr
        assert "Waiting for Prometheus to collect the final numbers." in run.stdout, run.stdout
        # Whether this machine is fast enough today is not the question.
        assert run.returncode == (0 if "Verdict: passed" in run.stdout else 2), run.stderr
        rows = re.findall(r"^([A-Z]+) (/.*?) +(\d+) +(\d+) +[\d.]+%", run.stdout, re.MULTILINE)
        counted = {(method, name): float(requests) for method, name, requests, _ in rows}
        assert counted["POST", "/users"] == 6
        span = f"{time.time() - began:.0f}s"
        seen = stack.prometheus.query(f"sum by (method, name) (last_over_time(locust_requests_total[{span}]))")
        assert {(dict(labels)["method"], dict(labels)["name"]): value for labels, value in seen.items()} == counted
        assert stack.prometheus.value(f"max_over_time(locust_workers[{span}])") == WORKERS
        assert stack.prometheus.value(f"max_over_time(locust_users[{span}])") == 6
        assert len(reports) == 1
        assert "/chat" in reports[0].read_text()
        assert not {LOCUST, "locust-worker"} & stack.containers().keys(), "nothing of it is left"
    finally:
        for report in reports:
            report.unlink()
