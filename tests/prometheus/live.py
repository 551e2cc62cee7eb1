"""A live stack of this project's own files, on free ports: Prometheus with everything that it scrapes."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import configs
from ops.servers import HOST
from tests import servers
from tests.alertmanager.config import CONFIG
from tests.running import Running, wait_until
from tests.servers import Alertmanager, Prometheus

JOBS = {"app", "postgres", "node", "prometheus", "alertmanager"}


@dataclass(frozen=True)
class Live:
    app: Running
    prometheus: Prometheus
    alertmanager: Alertmanager

    def call(self, method: str, path: str, body: Any = None, key: str = "") -> bytes:
        """One request to the service; an error answer raises urllib.error.HTTPError."""
        request = urllib.request.Request(
            self.app.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content

    def alerts(self) -> dict[str, str]:
        """The state, pending or firing, of every alert that is not silent."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self.prometheus.api("alerts")["alerts"]}

    def recorded(self) -> dict[tuple[tuple[str, str], ...], float]:
        """All series of recording rules with their present values."""
        return self.prometheus.query('{__name__=~".+:.+"}')

    def recorded_nan(self) -> list[str]:
        return [str(dict(labels)) for labels, value in self.recorded().items() if math.isnan(value)]


@contextmanager
def live_stack(folder: Path) -> Iterator[Live]:
    """Everything up and scraped; goes away with the context."""
    with ExitStack() as stack:
        database = stack.enter_context(servers.postgres())
        exporter = stack.enter_context(servers.postgres_exporter(database))
        node = stack.enter_context(servers.node_exporter())
        app = stack.enter_context(servers.app(database.environment()))
        routes = configs.link("alertmanager", folder / "alertmanager", database.secrets)
        (routes / "alertmanager.yml").unlink()
        (routes / "alertmanager.yml").write_text(CONFIG)  # notifies nobody
        alertmanager = stack.enter_context(servers.alertmanager(routes))
        addresses = {
            "app": app.port,
            "postgres": exporter.port,
            "node": node.port,
            "alertmanager": alertmanager.port,
        }
        home = configs.link("prometheus", folder / "prometheus", database.secrets)
        servers.streaming_as_set(home)
        configs.write_targets(home, {job: [f"{HOST}:{port}"] for job, port in addresses.items()})
        prometheus = stack.enter_context(servers.prometheus(home))
        own = [{"targets": [f"{HOST}:{prometheus.port}"]}]
        (home / "targets" / "prometheus.yml").write_text(json.dumps(own))
        live = Live(app, prometheus, alertmanager)
        wait_until(lambda: prometheus.targets() == dict.fromkeys(JOBS, "up"))
        yield live
