"""The load test in containers: as many workers as wanted, and their numbers in Prometheus."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import wait_until
from tests.stack.conftest import LOCUST, UP_SECONDS, Stack

pytestmark = pytest.mark.stack

WORKERS = 2


@pytest.fixture
def locust(stack: Stack) -> Iterator[str]:
    """The address of Locust's page, with all workers there."""
    services = (LOCUST, "locust-worker")
    scale = f"--scale=locust-worker={WORKERS}"
    try:
        stack.compose("--profile=load", "up", "--build", "--detach", "--wait", scale, *services, timeout=2 * UP_SECONDS)
        page = stack.url(LOCUST)
        wait_until(lambda: len(numbers(page)["workers"]) == WORKERS, timeout=60)
        yield page
    finally:
        stack.compose("--profile=load", "rm", "--stop", "--force", *services)


def numbers(page: str) -> Any:
    """What Locust's page shows."""
    with urllib.request.urlopen(f"{page}/stats/requests", timeout=10) as answer:
        return json.load(answer)


def test_workers_share_the_load_and_prometheus_counts_it(stack: Stack, locust: str) -> None:
    form = urllib.parse.urlencode({"user_count": 10, "spawn_rate": 10}).encode()
    with urllib.request.urlopen(f"{locust}/swarm", form, timeout=30) as answer:
        assert json.load(answer)["success"]
    wait_until(lambda: all(worker["user_count"] > 0 for worker in numbers(locust)["workers"]), timeout=60)
    wait_until(lambda: stack.prometheus.value("locust_workers") == WORKERS, timeout=60)
    wait_until(lambda: stack.prometheus.value("sum(locust_requests_total)") > 20, timeout=60)
    assert not stack.prometheus.query("locust_failures_total")
    with urllib.request.urlopen(f"{locust}/stop", b"", timeout=60) as answer:
        assert json.load(answer)["success"]
