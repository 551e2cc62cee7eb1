"""Addresses of servers behind a proxy, with paths."""

from __future__ import annotations

LINKS = {
    "GRAFANA_URL": "https://monitoring.example/grafana",
    "PROMETHEUS_URL": "https://monitoring.example/prometheus",
    "ALERTMANAGER_URL": "https://monitoring.example/alertmanager",
    "RUNBOOKS_URL": "https://wiki.example/runbooks",
}
