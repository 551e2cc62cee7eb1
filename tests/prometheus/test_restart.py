"""Prometheus stopped for a while, as an update does: no alert is resolved, and none fires anew."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ops import servers
from tests.running import start, wait_until
from tests.servers import Alertmanager, Prometheus

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]}}
"""
RULES = "groups: [{name: all, rules: [{alert: Lasting, expr: vector(1), for: 5s}]}]"


@pytest.mark.attack("Prometheus restarted while an alert fires", tried=2)
def test_a_restart_is_silent(start_alertmanager: Callable[..., Alertmanager], tmp_path: Path) -> None:
    """By default Prometheus would wait for the whole `for` again, and Alertmanager report the alert as resolved."""
    alertmanager = start_alertmanager("{route: {receiver: nobody}, receivers: [{name: nobody}]}")
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(port=alertmanager.port))

    def start_prometheus() -> Prometheus:
        def make(port: int) -> servers.Server:
            return servers.prometheus(tmp_path / "prometheus.yml", tmp_path / "data", port)

        started: Prometheus = start(make, tmp_path, Prometheus)
        return started

    def firing() -> list[dict[str, Any]]:
        alerts: list[dict[str, Any]] = prometheus.api("alerts")["alerts"]
        return [alert for alert in alerts if alert["state"] == "firing"]

    prometheus = start_prometheus()
    try:
        (before,) = wait_until(firing)
        (received,) = wait_until(alertmanager.alerts)
    finally:
        prometheus.stop(signal.SIGKILL)
    # Alertmanager takes the alert for resolved only after the time that an update takes, evaluations included.
    given = datetime.fromisoformat(received["endsAt"]) - datetime.fromisoformat(received["updatedAt"])
    assert given > timedelta(minutes=7)
    for _ in range(2):  # what was before it was killed, then ended properly
        prometheus = start_prometheus()
        try:
            (after,) = wait_until(firing)
        finally:
            prometheus.stop()
        assert after["activeAt"][:19] == before["activeAt"][:19]
        (still,) = alertmanager.alerts()
        assert still["startsAt"] == received["startsAt"]
