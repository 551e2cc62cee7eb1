"""Several replicas of the service in containers: found by DNS, replaced and taken away without a failed request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.paths import PROJECT
from tests.ops.docker.conftest import Stack
from tests.ops.writers import writing
from tests.running import wait_until

pytestmark = pytest.mark.stack

REPLICAS = 3
BY_HAND = f"docker compose up --detach --no-build --scale app={REPLICAS}"  # docs/scale.md


def scale(stack: Stack, replicas: int) -> None:
    stack.compose("up", "--detach", "--no-build", "--wait", f"--scale=app={replicas}")


def up(stack: Stack) -> dict[str, float]:
    """Instance -> 1 or 0, of every replica that Prometheus scrapes now."""
    return {dict(labels)["instance"]: value for labels, value in stack.prometheus.query('up{job="app"}').items()}


def addresses(stack: Stack) -> set[str]:
    """The replicas' addresses in the network that Prometheus is in."""
    identities = stack.compose("ps", "--quiet", "app").split()
    template = "{{range $name, $one := .NetworkSettings.Networks}}{{$name}} {{$one.IPAddress}}\n{{end}}"
    lines = stack.docker("inspect", f"--format={template}", *identities).splitlines()
    return {f"{line.split()[1]}:8000" for line in lines if "_monitoring " in line}


def active(stack: Stack) -> float:
    return stack.prometheus.value('haproxy_backend_active_servers{proxy="app"}')


def alerts(stack: Stack) -> set[str]:
    """Those that fire for the service; what others have on a busy machine is no question of replicas."""
    found = [alert for alert in stack.prometheus.api("alerts")["alerts"] if alert["state"] == "firing"]
    return {alert["labels"]["alertname"] for alert in found if alert["labels"].get("job") == "app"}


@pytest.fixture(scope="module")
def scaled(stack: Stack) -> Iterator[Stack]:
    scale(stack, REPLICAS)
    yield stack
    scale(stack, 1)


def test_every_replica_is_scraped_by_its_own_address(scaled: Stack) -> None:
    wait_until(lambda: up(scaled) == dict.fromkeys(addresses(scaled), 1))
    assert len(up(scaled)) == REPLICAS
    wait_until(lambda: active(scaled) == REPLICAS)
    counted = 'http_requests_total{job="app", endpoint="/items", method="POST", status_code="201"}'
    with writing(scaled.url("proxy")) as writer:
        wait_until(lambda: len(writer.confirmed) >= 10 * REPLICAS)
    assert writer.failures == []
    wait_until(lambda: len(scaled.prometheus.query(counted)) == REPLICAS)


def test_a_killed_replica_costs_at_most_the_request_in_flight(scaled: Stack) -> None:
    victim = scaled.compose("ps", "--quiet", "app").split()[0]

    def state() -> Any:
        return scaled.docker("inspect", "--format={{.RestartCount}} {{.State.Health.Status}} {{.State.Pid}}", victim)

    before = state().split()
    with writing(scaled.url("proxy")) as writer:
        os.kill(int(before[2]), signal.SIGKILL)
        confirmed = len(writer.confirmed)
        wait_until(lambda: len(writer.confirmed) >= confirmed + 20)
        wait_until(lambda: int(state().split()[0]) > int(before[0]) and state().split()[1] == "healthy")
    assert writer.errors <= 1, writer.failures
    assert not {"ServiceDown", "AvailabilityBurn"} & alerts(scaled)


def test_a_rolling_restart_fails_no_request(scaled: Stack) -> None:
    before = set(scaled.compose("ps", "--quiet", "app").split())
    with writing(scaled.url("proxy")) as writer:
        print(scaled.make("restart"))
    assert writer.failures == []
    after = set(scaled.compose("ps", "--quiet", "app").split())
    assert len(after) == REPLICAS
    assert not after & before


def test_removed_replicas_are_no_longer_targets(scaled: Stack, summarize: Callable[[str, str], None]) -> None:
    wait_until(lambda: len(up(scaled)) == REPLICAS)
    with writing(scaled.url("proxy")) as writer:
        scale(scaled, 1)
        ended = time.monotonic()
        wait_until(lambda: up(scaled) == dict.fromkeys(addresses(scaled), 1), interval=0.5)
        summarize("replicas in Docker", f"scaled down: gone from Prometheus after {time.monotonic() - ended:.0f} s")
    assert writer.failures == []
    assert not {"TargetDown", "ServiceDown", "TargetVanished"} & alerts(scaled)


def test_a_stack_of_the_former_release_continues(stack: Stack, tmp_path: Path) -> None:
    """Its service published the port by itself."""
    former = tmp_path / "former.yml"
    former.write_text(
        "services:\n  app: {ports: ['127.0.0.1:${APP_PORT}:8000']}\n  proxy: {profiles: [none], ports: !reset []}\n"
    )
    stack.compose("rm", "--stop", "--force", "proxy")
    stack.environment["COMPOSE_FILE"] = f"{PROJECT / 'docker-compose.yml'}{os.pathsep}{former}"
    try:
        stack.compose("up", "--detach", "--no-build", "--wait", "app")
        with writing(stack.url("proxy")) as writer:
            pass
    finally:
        del stack.environment["COMPOSE_FILE"]
    print(stack.make("up"))
    for item in writer.confirmed:
        assert writer.ask("GET", f"/items/{item}")["id"] == item
    assert set(stack.health().values()) == {"healthy"}
