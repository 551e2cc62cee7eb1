"""docker-compose.ha.yml in containers: two Prometheus and two Alertmanagers, of which one each is killed."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.alertmanager.silences import create_silence, silences
from tests.ops.docker.conftest import Stack
from tests.running import free_port, wait_until
from tests.servers import AlertmanagerApi, PrometheusApi

pytestmark = pytest.mark.stack

SECONDS = {"prometheus-2": "PROMETHEUS_2_PORT", "alertmanager-2": "ALERTMANAGER_2_PORT"}
FIRST = ("prometheus", "alertmanager")


@pytest.fixture(scope="module")
def pairs(stack: Stack) -> Iterator[tuple[list[PrometheusApi], list[AlertmanagerApi]]]:
    """The first and the second of each; afterwards the stack is as it was."""
    ports = {name: free_port() for name in SECONDS}
    changes = {"COMPOSE_FILE": f"docker-compose.yml{os.pathsep}docker-compose.ha.yml"}
    changes |= {SECONDS[name]: str(port) for name, port in ports.items()}
    stack.environment |= changes
    prometheus, alertmanager = PrometheusApi(), AlertmanagerApi()
    prometheus.url = f"http://127.0.0.1:{ports['prometheus-2']}"
    alertmanager.url = f"http://127.0.0.1:{ports['alertmanager-2']}"
    try:
        print(stack.make("up"))
        yield [stack.prometheus, prometheus], [stack.alertmanager, alertmanager]
    finally:
        for name in changes:
            del stack.environment[name]
        stack.compose("up", "--detach", "--no-build", "--wait", "--remove-orphans")


Pairs = tuple[list[PrometheusApi], list[AlertmanagerApi]]


def firing(alertmanager: AlertmanagerApi) -> set[str]:
    return {alert["labels"]["alertname"] for alert in alertmanager.alerts()}


def both_up(prometheis: list[PrometheusApi]) -> bool:
    """Each scrapes both of each."""
    return all(
        [target["health"] for target in one.api("targets")["activeTargets"] if target["labels"]["job"] in FIRST]
        == ["up"] * 4
        for one in prometheis
    )


def test_each_prometheus_sends_to_both_alertmanagers_which_gossip(pairs: Pairs) -> None:
    prometheis, alertmanagers = pairs
    wait_until(lambda: both_up(prometheis))
    for prometheus in prometheis:
        wait_until(lambda one=prometheus: len(one.api("alertmanagers")["activeAlertmanagers"]) == 2)  # type: ignore[misc]
    wait_until(lambda: [one.members() for one in alertmanagers] == [2, 2])
    # What was sent before the other one listened is sent again after the resend delay, two minutes.
    wait_until(lambda: all("Watchdog" in firing(one) for one in alertmanagers))
    made = create_silence(alertmanagers[0].url)
    wait_until(lambda: silences(alertmanagers[1].url) == {made})


def test_the_seconds_are_hardened_like_the_first_ones(stack: Stack, pairs: Pairs) -> None:
    def of_interest(container: dict[str, Any]) -> dict[str, Any]:
        host = container["HostConfig"]
        names = ("ReadonlyRootfs", "CapDrop", "CapAdd", "SecurityOpt", "Memory", "PidsLimit", "Privileged", "Tmpfs")
        networks = sorted(container["NetworkSettings"]["Networks"])
        mounts = sorted((one["Destination"], one["RW"]) for one in container["Mounts"])
        return {
            **{name: host[name] for name in names},
            "user": container["Config"]["User"],
            "in": networks,
            "at": mounts,
        }

    found = stack.containers()
    for first, second in zip(FIRST, SECONDS, strict=True):
        assert of_interest(found[second]) == of_interest(found[first])
        (bindings,) = filter(None, found[second]["HostConfig"]["PortBindings"].values())
        assert [one["HostIp"] for one in bindings] == ["127.0.0.1"]
        data = [[one["Name"] for one in found[name]["Mounts"] if one["Type"] == "volume"] for name in (first, second)]
        assert data[0] != data[1]


def test_one_of_each_is_killed_and_everything_goes_on(
    stack: Stack, pairs: Pairs, summarize: Callable[[str, str], None]
) -> None:
    prometheis, alertmanagers = pairs
    password = stack.passwords()["grafana_admin_password"]
    question = urllib.parse.urlencode({"query": 'count(up{job="app"})'})

    def grafana() -> bool:
        url = f"{stack.url('grafana')}/api/datasources/proxy/uid/prometheus/api/v1/query?{question}"
        answer = httpx2.get(url, auth=("admin", password), timeout=60)
        return answer.status_code == 200 and bool(answer.json()["data"]["result"])

    usage = stack.docker("stats", "--no-stream", "--format", "{{json .}}").splitlines()
    for line in map(json.loads, usage):
        if line["Name"].endswith(tuple(f"{name}-1" for name in (*SECONDS, *FIRST))):
            summarize("high availability in Docker", f"{line['Name']}: {line['MemUsage'].partition(' /')[0]}")
    wait_until(grafana)
    silenced = silences(alertmanagers[0].url)
    stack.compose("kill", *FIRST)  # with SIGKILL; Docker does not start again what was killed by hand
    try:
        wait_until(grafana)
        wait_until(lambda: prometheis[1].value('up{job="alertmanager", instance="alertmanager:9093"}') == 0)
        wait_until(lambda: prometheis[1].value('up{job="prometheus", instance="prometheus:9090"}') == 0)
        wait_until(lambda: alertmanagers[1].members() == 1)
        assert "Watchdog" in firing(alertmanagers[1])
        assert silences(alertmanagers[1].url) == silenced != set()
    finally:
        stack.compose("start", *FIRST)
    wait_until(lambda: [one.members() for one in alertmanagers] == [2, 2])
    wait_until(lambda: both_up(prometheis))


def test_reload_reaches_both_of_each(stack: Stack, pairs: Pairs) -> None:
    said = stack.make("reload")
    assert [line.split()[0] for line in said.splitlines() if "configuration reloaded" in line] == [
        *("alertmanager", "prometheus", "alertmanager-2", "prometheus-2")
    ]
