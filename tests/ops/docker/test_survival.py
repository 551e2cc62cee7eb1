"""Every service is killed (SIGKILL) in turn while the stack is in use: it comes back by itself and nothing is lost.

A kill through Docker would count as a manual stop; a crash is a signal to the process, so these tests send that.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.alertmanager.silences import create_silence, silences
from tests.ops import writers
from tests.ops.docker.conftest import Stack
from tests.ops.writers import Writer
from tests.running import wait_until

pytestmark = pytest.mark.stack

BACK_SECONDS = 240
SCRAPE_TIMEOUT = 10


def writing(stack: Stack) -> AbstractContextManager[Writer]:
    return writers.writing(stack.url("proxy"))


def crash(stack: Stack, service: str) -> None:
    """Kill the service's first process and wait until Docker has started it again and it is healthy."""
    before = stack.containers()[service]
    os.kill(before["State"]["Pid"], signal.SIGKILL)

    def back() -> bool:
        now = stack.containers()[service]
        return bool(now["RestartCount"] > before["RestartCount"] and now["State"]["Health"]["Status"] == "healthy")

    started = time.monotonic()
    wait_until(back, timeout=BACK_SECONDS, interval=0.2)
    print(f"{service} was back after {time.monotonic() - started:.1f} s")


@pytest.fixture(autouse=True)
def no_notifications(stack: Stack) -> Iterator[None]:
    """A crash that heals itself within seconds is no reason for an alert about a lost part."""

    def firing() -> set[tuple[str, str]]:
        labels = [alert["labels"] for alert in stack.alertmanager.alerts()]
        return {(each["alertname"], each.get("job", "")) for each in labels}

    # An earlier test's alert is kept firing for minutes after its cause has gone.
    before = firing()
    yield
    assert not {name for name, _ in firing() - before} & {"TargetDown", "ServiceDown", "PostgresDown"}


@pytest.mark.parametrize("service", ["postgres-exporter", "node-exporter", "grafana"])
def test_others_do_not_notice(stack: Stack, service: str) -> None:
    others = {name: one["State"]["StartedAt"] for name, one in stack.containers().items() if name != service}
    with writing(stack) as writer:
        crash(stack, service)
    assert writer.errors == 0
    assert {name: one["State"]["StartedAt"] for name, one in stack.containers().items() if name != service} == others


def test_postgres_keeps_every_confirmed_row_and_the_service_reconnects(stack: Stack) -> None:
    service_started = stack.containers()["app"]["State"]["StartedAt"]
    with writing(stack) as writer:
        crash(stack, "postgres")
        confirmed = len(writer.confirmed)
        wait_until(lambda: len(writer.confirmed) >= confirmed + 10)
    assert stack.containers()["app"]["State"]["StartedAt"] == service_started
    for item in writer.confirmed:
        assert writer.ask("GET", f"/items/{item}")["id"] == item
    print(f"{len(writer.confirmed)} rows confirmed, all there; {writer.errors} requests failed meanwhile")


def test_a_crashed_worker_costs_no_count(stack: Stack) -> None:
    """One of the service's workers dies: it is replaced, and no counter goes back."""
    main = stack.containers()["app"]["State"]["Pid"]

    def workers() -> set[int]:
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return {pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}

    def created() -> float:
        return stack.prometheus.value(
            'http_requests_total{job="app", endpoint="/items", method="POST", status_code="201"}'
        )

    with writing(stack) as writer:
        old = workers()
        assert len(old) == 2
        os.kill(min(old), signal.SIGKILL)
        wait_until(lambda: len(workers()) == 2 and workers() != old)
        confirmed = len(writer.confirmed)
        wait_until(lambda: len(writer.confirmed) >= confirmed + 10)
    total = len(writer.confirmed)
    wait_until(lambda: created() >= total, interval=1)
    assert stack.prometheus.value('max(resets(http_requests_total{job="app", endpoint="/items"}[2m]))') == 0


def test_the_service_comes_back_and_only_its_counters_restart(stack: Stack) -> None:
    with writing(stack) as writer:
        crash(stack, "app")
        confirmed = len(writer.confirmed)
        wait_until(lambda: len(writer.confirmed) >= confirmed + 10)
    for item in writer.confirmed:
        assert writer.ask("GET", f"/items/{item}")["id"] == item
    wait_until(lambda: stack.prometheus.targets()["app"] == "up", interval=0.5)
    assert stack.prometheus.value('max(resets(node_cpu_seconds_total{mode="user"}[5m]))') == 0


def test_prometheus_keeps_its_data(stack: Stack) -> None:
    def known() -> float:
        """The series that Prometheus knew at the moment, its own left out: they go on under the same names."""
        (result,) = stack.prometheus.api("query", query='count({job!~"|prometheus"})', time=moment)["result"]
        return float(result["value"][1])

    wait_until(lambda: "unknown" not in stack.prometheus.targets().values(), interval=0.5)
    moment = str(time.time())
    wait_until(lambda: time.time() > float(moment) + SCRAPE_TIMEOUT)  # what is under way then has come
    before = known()
    assert before > 1000
    with writing(stack) as writer:
        crash(stack, "prometheus")
    assert writer.errors == 0
    assert known() == before


def test_alertmanager_keeps_its_silences(stack: Stack) -> None:
    identity = create_silence(stack.alertmanager.url)
    # What it has not written to disk yet, it can't know again.
    wait_until(
        lambda: stack.shell("alertmanager", f"grep -q {identity} /alertmanager/silences").returncode == 0,
        interval=1,
    )
    crash(stack, "alertmanager")
    assert identity in silences(stack.alertmanager.url)
    # Prometheus sends an alert again after a minute, at its next evaluation.
    wait_until(lambda: any(alert["labels"]["alertname"] == "Watchdog" for alert in stack.alertmanager.alerts()))
