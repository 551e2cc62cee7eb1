"""Three replicas of the service behind HAProxy, as ordinary processes: nothing is lost that need not be."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from tests.ops.native import Stack, native_stack
from tests.ops.writers import Writer, sign_up, writing
from tests.running import free_ports, wait_until
from tests.servers import PrometheusApi

REPLICAS = ("app", "app-2", "app-3")
CLIENTS = 4


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    first = str(free_ports(len(REPLICAS)))
    settings = {"APP_REPLICAS": "3", "APP_REPLICA_PORT": first, "APP_WORKERS": "1", "APP_SIGN_UPS_PER_MINUTE": "0"}
    with native_stack("1s", **settings) as stack:
        result = stack.run("up")
        assert result.returncode == 0, result.stdout + result.stderr
        yield stack


@pytest.fixture
def prometheus(stack: Stack) -> PrometheusApi:
    """Asked while everything is up, as each test leaves it."""
    found = PrometheusApi()
    found.url = stack.address("prometheus")
    wait_until(lambda: up(found) == dict.fromkeys(addresses(stack), 1))
    return found


def addresses(stack: Stack) -> list[str]:
    first = int(stack.environment["APP_REPLICA_PORT"])
    return [f"127.0.0.1:{first + number}" for number in range(len(REPLICAS))]


def up(prometheus: PrometheusApi) -> dict[str, float]:
    return {dict(labels)["instance"]: value for labels, value in prometheus.query('up{job="app"}').items()}


def active(prometheus: PrometheusApi) -> float:
    """Replicas that the proxy sends requests to."""
    return prometheus.value('haproxy_backend_active_servers{proxy="app"}')


def load(stack: Stack, exits: ExitStack) -> list[Writer]:
    return [exits.enter_context(writing(stack.address("app"))) for _ in range(CLIENTS)]


def test_each_replica_is_scraped_and_counts_its_own_requests(stack: Stack, prometheus: PrometheusApi) -> None:
    created = 'http_requests_total{job="app", endpoint="/items", method="POST", status_code="201"}'
    before = sum(prometheus.query(created).values())
    with writing(stack.address("app")) as writer:
        wait_until(lambda: len(writer.confirmed) >= 30)
    assert writer.failures == []
    wait_until(lambda: sum(prometheus.query(created).values()) - before == len(writer.confirmed))
    counts: dict[str, float] = {}

    def all_are_scraped() -> bool:
        counts.update({dict(labels)["instance"]: value for labels, value in prometheus.query(created).items()})
        return set(counts) == set(addresses(stack))

    wait_until(all_are_scraped)
    assert all(counts.values()), counts
    wait_until(lambda: active(prometheus) == len(REPLICAS))
    listed = [line.split()[0] for line in stack.run("status").stdout.splitlines() if " running pid" in line]
    assert {*REPLICAS, "proxy"} <= set(listed)


def test_a_killed_replica_costs_at_most_the_requests_in_flight(stack: Stack, prometheus: PrometheusApi) -> None:
    with ExitStack() as exits:
        clients = load(stack, exits)
        pid = stack.pid("app-2")
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            process.send_signal(signal.SIGKILL)
        confirmed = sum(len(client.confirmed) for client in clients)
        wait_until(lambda: sum(len(client.confirmed) for client in clients) >= confirmed + 10 * CLIENTS)
        wait_until(lambda: stack.pid("app-2") not in (0, pid))
        wait_until(lambda: stack.supervisor.processes()["app-2"]["statename"] == "RUNNING")
    assert sum(client.errors for client in clients) <= CLIENTS, [client.failures for client in clients]


def test_a_replica_that_is_down_is_one_target_down_and_no_service_down(stack: Stack, prometheus: PrometheusApi) -> None:
    def alerts(name: str) -> list[str]:
        found = prometheus.api("alerts")["alerts"]
        return [alert["labels"].get("instance", "") for alert in found if alert["labels"]["alertname"] == name]

    gone = addresses(stack)[2]
    with writing(stack.address("app")) as writer:
        stack.supervisor.stop_server("app-3")
        try:
            wait_until(lambda: alerts("TargetDown") == [gone])
            assert alerts("ServiceDown") == []
            wait_until(lambda: active(prometheus) == 2)
        finally:
            stack.supervisor.start_server("app-3")
        wait_until(lambda: alerts("TargetDown") == [])
    assert writer.failures == []


def test_a_rolling_restart_fails_no_request(stack: Stack, prometheus: PrometheusApi) -> None:
    before = {name: stack.pid(name) for name in REPLICAS}
    with ExitStack() as exits:
        clients = load(stack, exits)
        result = stack.run("restart")
    assert result.returncode == 0, result.stderr
    assert re.findall(r"Replacing (\S+)", result.stdout) == [*REPLICAS]
    assert [client.failures for client in clients] == [[]] * CLIENTS
    assert not set(before.values()) & {stack.pid(name) for name in REPLICAS}


def test_streams_pass_unbuffered_and_who_leaves_is_counted_499(stack: Stack, prometheus: PrometheusApi) -> None:
    gone = 'sum(http_requests_total{job="app", endpoint="/chat", status_code="499"}) or vector(0)'
    before = prometheus.value(gone)
    url = stack.address("app")
    headers = sign_up(url, "reader")
    question = {"message": "Tell me a long story", "stream": True}
    with httpx2.stream("POST", f"{url}/chat", json=question, headers=headers, timeout=60) as answer:
        pieces = list(answer.iter_raw())
    assert len(pieces) > 3, "it came in one piece"
    assert b"event: done" not in b"".join(pieces[:-1])[:-200]

    # A client that asks for the whole answer and does not wait for it.
    body = b'{"message": "Tell me a long story"}'
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), 10) as client:
        head = f"POST /chat HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_until(lambda: prometheus.value(gone) == before + 1)


def test_without_a_ready_replica_the_service_responds_itself(stack: Stack, prometheus: PrometheusApi) -> None:
    """All are unready: the proxy passes their answers on, so that their metrics count them."""
    failed = 'sum(http_requests_total{job="app", endpoint="/items", status_code="503"}) or vector(0)'
    before = prometheus.value(failed)
    url = stack.address("app")
    headers = sign_up(url, "patient")
    stack.supervisor.stop_server("postgres")
    try:
        wait_until(lambda: active(prometheus) == 0)
        answer = httpx2.get(f"{url}/items", headers=headers, timeout=30)
        assert answer.status_code == 503
        assert answer.json()["detail"], "the service's own answer"
        wait_until(lambda: prometheus.value(failed) > before)
    finally:
        stack.supervisor.start_server("postgres")
    wait_until(lambda: active(prometheus) == len(REPLICAS))
    assert httpx2.get(f"{url}/items", headers=headers, timeout=30).status_code == 200


def test_fewer_or_more_replicas_are_a_setting(stack: Stack) -> None:
    refused = stack.run("up", APP_REPLICAS="none")
    assert refused.returncode == 1
    assert refused.stderr == "APP_REPLICAS is 'none'; it must be a number from 1 to 31.\n"
    refused = stack.run("restart", APP_REPLICAS="2")
    assert refused.returncode == 1
    assert refused.stderr == "Settings have changed: `make up` restarts everything with them.\n"
