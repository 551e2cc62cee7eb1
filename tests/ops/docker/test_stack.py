"""The whole stack in containers works: healthy, scraped, measured, shown, and an alert fires when a part fails."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ops.paths import PROJECT
from tests import traffic
from tests.core_metrics import QUERIES
from tests.ops.docker.conftest import Stack
from tests.rig import engine
from tests.running import wait_until

pytestmark = pytest.mark.stack

JOBS = {"app", "proxy", "node", "postgres", "prometheus", "alertmanager", "grafana"}
TRAFFIC_SECONDS = 45  # three scrapes of the stack's 15 s
ALERT_SECONDS = 300  # scrape, the alert's minute, evaluation, and a busy machine


@pytest.fixture(scope="module")
def used(stack: Stack) -> Stack:
    """The stack after some users have used the service."""
    traffic.drive(stack.url("proxy"), TRAFFIC_SECONDS)
    return stack


def test_every_service_is_healthy(stack: Stack) -> None:
    assert stack.health() == dict.fromkeys(stack.services, "healthy")


def test_prometheus_reaches_every_target(stack: Stack) -> None:
    def targets() -> bool:
        found = stack.prometheus.targets()
        return {job: health for job, health in found.items() if job != "locust"} == dict.fromkeys(JOBS, "up")

    wait_until(targets, interval=0.5)


def test_rules_are_loaded_and_evaluate(stack: Stack) -> None:
    def evaluated() -> bool:
        groups = stack.prometheus.api("rules")["groups"]
        others = {
            rule["name"]: rule.get("lastError", rule["health"])
            for group in groups
            for rule in group["rules"]
            if rule["health"] != "ok"
        }
        assert not others, others
        return bool(groups)

    wait_until(evaluated, interval=1)
    files = {Path(group["file"]).name for group in stack.prometheus.api("rules")["groups"]}
    assert files == {file.name for file in (PROJECT / "prometheus" / "rules").glob("*.yml")}


def test_fourteen_metrics(used: Stack) -> None:
    def implausible() -> dict[str, float]:
        values = {f"{query.row}: {query.what}": (query, used.prometheus.value(query.expression)) for query in QUERIES}
        return {name: value for name, (query, value) in values.items() if not query.plausible(value)}

    wait_until(lambda: not implausible(), timeout=40, interval=1)


def test_statements_of_the_database_are_watched(used: Stack) -> None:
    """pg_stat_statements is loaded, the exporter's role may read it, and the service's statements are in it."""
    assert used.prometheus.value('sum(pg_stat_statements_calls_total{datname="sightline"})') > 0


def test_node_exporter_reports_the_host(stack: Stack) -> None:
    """Processors, memory, file systems and network are the machine's, not the container's."""
    devices = {dict(labels)["device"] for labels in stack.prometheus.query("node_network_receive_bytes_total")}
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    stable = {name for line in lines if not (name := line.split(":")[0].strip()).startswith("veth")}
    assert stable <= devices

    processors = Path("/proc/stat").read_text().count("\ncpu")
    assert stack.prometheus.value('count(node_cpu_seconds_total{mode="idle"})') == processors
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert stack.prometheus.value("node_memory_MemTotal_bytes") == memory
    name = Path("/proc/sys/kernel/hostname").read_text().strip()
    assert stack.prometheus.value(f'node_uname_info{{nodename="{name}"}}') == 1

    mounts = {dict(labels)["mountpoint"] for labels in stack.prometheus.query("node_filesystem_avail_bytes")}
    assert "/" in mounts
    assert "/etc/hosts" not in mounts, "the container's own mounts are reported"


def test_a_file_system_that_is_mounted_later_is_measured(stack: Stack, tmp_path: Path) -> None:
    """And not the one below it; once unmounted it is gone from the container, too."""
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    # node_exporter takes the list of mounts from the machine. The private engine has mounts of its own: in both, the
    # device is where one mount would be on a machine whose engine is its own.
    hosts = {os.readlink(f"/proc/{pid}/ns/mnt"): f"--target={pid}" for pid in (engine.host_process(), os.getpid())}

    def on_hosts(*command: object) -> None:
        for host in hosts.values():
            subprocess.run(["nsenter", host, "--mount", "--", *map(str, command)], check=True)

    with ExitStack() as undo:
        place = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o755)  # node_exporter is `nobody`
        attach = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
        undo.callback(subprocess.run, ["losetup", "--detach", attach.stdout.strip()], check=True)
        on_hosts("mount", attach.stdout.strip(), place)
        undo.callback(on_hosts, "umount", place)
        (place / "all").write_bytes(bytes(shutil.disk_usage(place).free))
        ratio = (
            f'instance_mountpoint:node_filesystem_avail:ratio{{mountpoint="{place}"}}'  # what HostDiskAlmostFull asks
        )
        wait_until(lambda: [value for value in stack.prometheus.query(ratio).values() if value < 0.05], interval=1)
    assert str(place) not in stack.shell("node-exporter", "cat /proc/self/mountinfo").stdout


def test_grafana_has_taken_the_provisioning(stack: Stack) -> None:
    password = (stack.secrets / "grafana_admin_password").read_text()
    sources = {source["uid"]: source["type"] for source in _grafana(stack, "/api/datasources", password)}
    assert sources == {"prometheus": "prometheus", "alertmanager": "alertmanager"}

    files = (PROJECT / "grafana" / "dashboards").glob("*.json")
    expected = {dashboard["uid"]: dashboard["title"] for dashboard in (json.loads(file.read_text()) for file in files)}
    found = {found["uid"]: found["title"] for found in _grafana(stack, "/api/search?type=dash-db", password)}
    assert found == expected

    query = urllib.parse.urlencode({"query": 'up{job="app"}'})
    answer = _grafana(stack, f"/api/datasources/proxy/uid/prometheus/api/v1/query?{query}", password)
    assert answer["data"]["result"][0]["value"][1] == "1"


@pytest.mark.parametrize("password", [None, "admin", ""])
def test_grafana_rejects_logins_without_the_password(stack: Stack, password: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _grafana(stack, "/api/datasources", password)
    assert refused.value.code == 401


def test_runbooks_are_where_the_alerts_say(stack: Stack) -> None:
    """The address in an alert's annotation opens its runbook."""
    wait_until(lambda: any(alert["labels"]["alertname"] == "Watchdog" for alert in stack.alertmanager.alerts()))
    (watchdog,) = (alert for alert in stack.alertmanager.alerts() if alert["labels"]["alertname"] == "Watchdog")
    address = watchdog["annotations"]["runbook_url"]
    assert address.startswith(f"http://localhost:{stack.ports['prometheus']}/")
    with urllib.request.urlopen(address.replace("localhost", "127.0.0.1"), timeout=60) as answer:
        assert "Watchdog" in answer.read().decode()


def test_a_stopped_service_raises_an_alert(stack: Stack) -> None:
    """Its target's alert reaches Alertmanager; back again, it is only kept firing as long as the rule says."""

    def firing() -> list[dict[str, Any]]:
        return [
            alert
            for alert in stack.alertmanager.alerts()
            if alert["labels"]["alertname"] == "TargetDown" and alert["labels"]["job"] == "postgres"
        ]

    def over() -> bool:
        [alert] = [
            alert
            for alert in stack.prometheus.api("alerts")["alerts"]
            if alert["labels"]["alertname"] == "TargetDown" and alert["labels"]["job"] == "postgres"
        ]
        return "keepFiringSince" in alert

    assert not firing()
    stopped = time.monotonic()
    stack.compose("stop", "postgres-exporter")
    wait_until(lambda: bool(firing()), timeout=ALERT_SECONDS, interval=1)
    assert not over()
    fired = time.monotonic()
    stack.compose("start", "postgres-exporter")
    wait_until(over, timeout=ALERT_SECONDS, interval=1)
    seen = time.monotonic()
    print(
        f"TargetDown in Alertmanager after {fired - stopped:.0f} s, its end seen {seen - fired:.0f} s after the start"
    )
    stack.wait_until_healthy()


def _grafana(stack: Stack, path: str, password: str | None) -> Any:
    request = urllib.request.Request(stack.url("grafana") + path)
    if password is not None:
        token = base64.b64encode(f"admin:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
