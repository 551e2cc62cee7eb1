"""The rules against a live stack: every metric exists, nothing alerts at idle, nothing is NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prometheus.src.settings import SETTINGS
from tests.prometheus.live import Live, live_stack
from tests.prometheus.rules import alerts, wanted_metrics
from tests.running import wait_until


def kernel_tells_pressure() -> bool:
    try:
        return bool(Path("/proc/pressure/memory").read_text())
    except OSError:
        return False


PRESSURE = {"node_pressure_memory_stalled_seconds_total", "node_pressure_io_stalled_seconds_total"}
ZFS = {"node_zfs_arc_size", "node_zfs_arc_c_min"}  # of machines with that file system
NOT_HERE = (set() if kernel_tells_pressure() else PRESSURE) | (
    set() if Path("/proc/spl/kstat/zfs/arcstats").exists() else ZFS
)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_stack(tmp_path_factory.mktemp("live")) as running:
        yield running


def test_an_idle_stack_is_quiet(live: Live) -> None:
    """The short form of `make soak-idle`: every group of rules has had its turn."""
    wait_until(lambda: live.prometheus.value("min(prometheus_rule_group_iterations_total)") >= 1)
    host = {
        rule.name for rule in alerts() if rule.labels["area"] == "host"
    }  # what else this machine does is its own affair
    slow = {("ScrapeSlow", "pending"), ("PrometheusRulesLate", "pending")}  # as is how busy it is at the moment
    assert {alert for alert in live.alerts().items() if alert[0] not in host} - slow == {("Watchdog", "firing")}
    assert live.recorded_nan() == []
    assert list(live.prometheus.query("node_textfile_scrape_error").values()) == [0.0]
    # No request yet, and that is known: the scrape itself shows Prometheus that this is a service.
    wait_until(lambda: list(live.prometheus.query("job:http_requests:rate5m").values()) == [0.0])
    health = {
        rule["name"]: rule["health"] for group in live.prometheus.api("rules")["groups"] for rule in group["rules"]
    }
    assert set(health.values()) == {"ok"}, [name for name, state in health.items() if state != "ok"]


def test_every_metric_of_the_rules_and_runbooks_exists(live: Live, summarize: Callable[[str, str], None]) -> None:
    key = json.loads(live.call("POST", "/users", {"name": "Rules"}))["api_key"]
    live.call("POST", "/items", {"title": "a", "description": "b"}, key)
    for stream in (False, True):
        live.call("POST", "/chat", {"message": "Hello", "stream": stream}, key)
    wanted = wanted_metrics() - NOT_HERE
    # The ones of a queue are there once there is one: tests/prometheus/test_remote_write.py.
    wanted -= {name for name in wanted if name.startswith("prometheus_remote_storage_")}

    def missing() -> set[str]:
        known = set(live.prometheus.api("label/__name__/values")) | set(live.prometheus.api("metadata"))
        stems = ("_total", "_bucket", "_count", "_sum")  # OpenMetrics names the family, not the series
        families = {name.removesuffix(stem) for name in wanted for stem in stems if name.endswith(stem)}
        return {
            name
            for name in wanted - known
            if not any(name.endswith(stem) and name.removesuffix(stem) in known & families for stem in stems)
        }

    def complete() -> bool:
        assert not (absent := missing()), f"not exposed by the running stack: {sorted(absent)}"
        return True

    wait_until(complete)
    absent = f" (this kernel lacks {', '.join(sorted(NOT_HERE))})" if NOT_HERE else ""
    summarize("rules", f"{len(wanted)} metrics named by rules and runbooks, all exposed by the running stack{absent}")


def test_bucket_bounds_of_the_objectives_exist(live: Live) -> None:
    """A bound that is no bucket of the histogram would never count anything as fast."""
    key = json.loads(live.call("POST", "/users", {"name": "Bounds"}))["api_key"]
    live.call("POST", "/chat", {"message": "Hello", "stream": True}, key)
    for metric, bound in (
        ("http_request_duration_seconds_bucket", SETTINGS.latency_le),
        ("http_response_start_seconds_bucket", SETTINGS.start_le),
    ):
        wait_until(lambda: live.prometheus.query(f'{metric}{{le="{bound}"}}'))  # noqa: B023  called at once


def test_recorded_series_move_with_traffic(live: Live) -> None:
    key = json.loads(live.call("POST", "/users", {"name": "Traffic"}))["api_key"]

    def moving() -> bool:
        live.call("GET", "/items", key=key)
        return any(value > 0 for value in live.prometheus.query("job:http_requests:rate5m").values())

    wait_until(moving, interval=0.5)
    left = wait_until(lambda: live.prometheus.query("job_slo:error_budget_remaining:ratio"))
    assert {dict(labels)["slo"] for labels in left} == {"availability", "latency"}
    assert all(math.isfinite(value) and value <= 1 for value in left.values())
