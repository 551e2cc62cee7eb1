"""What users and servers make while a stack runs, and how to find it again: for tests of what must not be lost."""

from __future__ import annotations

import time

import httpx2

from tests.alertmanager.silences import create_silence, silences
from tests.running import wait_until
from tests.servers import PrometheusApi


class Kept:
    """A row of the service's database, a silence of Alertmanager, and the series that Prometheus knows now."""

    def __init__(self, app: str, alertmanager: str, prometheus: str) -> None:
        self._app, self._alertmanager = app, alertmanager
        self._prometheus = PrometheusApi()
        self._prometheus.url = prometheus
        self.name = f"kept-{time.time_ns()}"
        self._key = httpx2.post(f"{app}/users", json={"name": self.name}, timeout=60).json()["api_key"]
        self._silence = create_silence(alertmanager)
        wait_until(self._look)

    def _look(self) -> bool:
        # What was scraped by then has come, and what was recorded of it, also on a busy machine.
        self._moment = time.time() - 20
        self._series = self._count()
        return sum(self._series.values()) > 1000

    def missing(self) -> list[str]:
        """What isn't there any more."""
        user = httpx2.get(f"{self._app}/users/me", headers={"Authorization": f"Bearer {self._key}"}, timeout=60)
        there = {
            "row": user.status_code == 200 and user.json()["name"] == self.name,
            "silence": self._silence in silences(self._alertmanager),
            "series": self._count() == self._series,
        }
        return [what for what, found in there.items() if not found]

    def _count(self) -> dict[tuple[tuple[str, str], ...], float]:
        """Job -> number of its series at the moment."""
        return self._prometheus.query(f'count by (job) ({{job!=""}} @ {self._moment:.3f})')
