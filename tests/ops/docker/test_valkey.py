"""`make up` with ACTIVE_USERS_STORE in Docker: replicas count users together, in a confined Valkey."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.ops.docker.conftest import NAME, Stack
from tests.ops.writers import sign_up
from tests.running import wait_until

pytestmark = pytest.mark.stack
STORE = "valkey"
REPLICA = f"{NAME}-another-app"
# Asked inside of a container: only Prometheus and the service have the token of /metrics.
METRICS = """
import urllib.request
token = open("/run/secrets/metrics_token").read().strip()
request = urllib.request.Request("http://127.0.0.1:8000/metrics", headers={"Authorization": f"Bearer {token}"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@pytest.fixture(scope="module")
def counting(stack: Stack) -> Iterator[Stack]:
    """The stack with the store; without it again afterwards."""
    stack.environment["ACTIVE_USERS_STORE"] = f"redis://{STORE}:6379"
    try:
        stack.make("up")
        yield stack
    finally:
        del stack.environment["ACTIVE_USERS_STORE"]
        stack.make("up")
        stack.up()


def gauge(metrics: str, series: str) -> float | None:
    """The value of one series of /metrics, None without it."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


def test_a_replica_without_users_counts_those_of_the_other(counting: Stack) -> None:
    for number in range(3):
        url = counting.url("proxy")
        answer = httpx2.get(f"{url}/items", headers=sign_up(url, f"user {number}"), timeout=60)
        assert answer.status_code == 200
    counting.compose("run", "--detach", "--no-deps", f"--name={REPLICA}", "app")
    try:

        def counted() -> bool:
            result = counting.run("exec", REPLICA, "python", "-c", METRICS)
            return (gauge(result.stdout, 'active_users{window="1h"}') or 0) >= 3

        wait_until(counted, interval=1)
        # From the next scrape on.
        wait_until(lambda: counting.prometheus.value('active_users_store_up{job="app"}') == 1)
    finally:
        counting.docker("rm", "--force", REPLICA)


def test_it_is_confined_and_reachable_from_the_service_only(counting: Stack) -> None:
    containers = counting.containers()
    store = containers[STORE]
    status = Path(f"/proc/{store['State']['Pid']}/status").read_text()
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert set(facts["Uid"]) == {"999"}
    assert {facts[kind][0].strip("0") for kind in ("CapEff", "CapBnd", "CapPrm")} == {""}
    assert store["HostConfig"]["ReadonlyRootfs"]
    assert store["HostConfig"]["CapDrop"] == ["ALL"]
    assert store["HostConfig"]["Memory"] == 128 << 20
    assert not any(mount["RW"] for mount in store["Mounts"])
    assert not any(store["NetworkSettings"]["Ports"].values())
    assert set(store["NetworkSettings"]["Networks"]) == {f"{NAME}_database"}


def test_without_the_password_it_answers_nothing_and_shows_it_nowhere(counting: Stack) -> None:
    refused = counting.shell(STORE, "valkey-cli ping")
    assert "NOAUTH" in refused.stdout + refused.stderr
    password = (counting.secrets / "valkey_password").read_text()
    store = counting.containers()[STORE]
    process = Path("/proc", str(store["State"]["Pid"]))
    visible = json.dumps([store["Config"], store["Args"]])
    visible += (process / "cmdline").read_text() + (process / "environ").read_text()
    assert password not in visible + counting.compose("logs", "--no-color", STORE)
