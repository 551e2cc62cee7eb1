"""The running stack as a drill sees it: addresses, and services that can be stopped, started and killed."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import http
from ops.errors import OpsError
from ops.settings import Settings
from ops.stack import Servers, Stack

TIMEOUT = 10.0  # seconds for an answer of one of the servers
PATIENT = 60.0  # for the service, which faults may have made slow


class DrillError(OpsError):
    """A drill that cannot run; the message is what to do."""


@dataclass(frozen=True)
class Target:
    """A running stack and how to reach its parts."""

    app: str
    prometheus: str
    alertmanager: str
    servers: Servers
    faults_token: str | None
    load_metrics_port: int = 9646
    """Where a load test that runs without Docker has its metrics."""

    def check_faults(self) -> None:
        """Check that the service's faults can be switched on.

        Raises:
            DrillError: they cannot.
        """
        self._faults("GET", "", None)

    def fault(self, name: str, **parameters: Any) -> None:
        """Switch a fault of the service on."""
        self._faults("POST", f"/{name}", parameters)

    def repair(self) -> None:
        """Switch all faults of the service off; a service that is down has none on."""
        try:
            self._faults("DELETE", "", None)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return

    def visit(self, path: str) -> None:
        """Request a page of the service without credentials, whatever the status of its response."""
        with suppress(urllib.error.HTTPError):
            http.get(f"{self.app}{path}", PATIENT)

    def kill(self, service: str) -> None:
        """Kill a service's main processes (SIGKILL).

        Raises:
            DrillError: they belong to another user.
        """
        for pid in self.servers.pids(service):
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                raise DrillError(f"Killing {service} needs root: its process belongs to another user.") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        address = f"{self.prometheus}/api/v1/query"
        return list(_get(address, query=expression)["data"]["result"])

    def alerts(self) -> list[dict[str, Any]]:
        """Every pending or firing alert, from Prometheus."""
        return list(_get(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"])

    def active(self) -> set[str]:
        """The names of the alerts in Alertmanager that are neither inhibited nor silenced.

        They are sent when `group_wait` is over, if there is a receiver.
        """
        alerts = _get(f"{self.alertmanager}/api/v2/alerts", inhibited="false", silenced="false")
        return {alert["labels"]["alertname"] for alert in alerts}

    def muted(self) -> set[str]:
        """The names of the alerts in Alertmanager that are inhibited or silenced."""
        alerts = _get(f"{self.alertmanager}/api/v2/alerts", active="false", unprocessed="false")
        return {alert["labels"]["alertname"] for alert in alerts}

    def rules(self) -> dict[str, dict[str, Any]]:
        """Every loaded alerting rule by name; `duration` is its `for` in seconds."""
        groups = _get(f"{self.prometheus}/api/v1/rules", type="alert")["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def _faults(self, method: str, path: str, body: dict[str, Any] | None) -> None:
        if self.faults_token is None:
            raise DrillError(
                "Fault injection is switched off. Set FAULTS_ENABLED=true in .env and run `make up` again. Switch it "
                "off when you are done: with the token in secrets/ a client can break the service."
            )
        request = urllib.request.Request(  # noqa: S310  our own address
            f"{self.app}/faults{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.faults_token}", "Content-Type": "application/json"},
        )
        try:
            http.request(request, PATIENT)
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            if error.code == 404:
                detail = "fault injection is switched off; set FAULTS_ENABLED=true in .env and run `make up` again"
            raise DrillError(f"The service rejected the fault ({error.code}): {detail}") from None


def _get(address: str, **parameters: str) -> Any:
    if parameters:
        address += "?" + urllib.parse.urlencode(parameters)
    return json.loads(http.get(address, TIMEOUT))


def running(stack: Stack) -> Target:
    """The stack that `make up` started.

    Raises:
        DrillError: it does not run.
    """
    target = Target(
        app=_address(stack.settings, "APP_PORT"),
        prometheus=_address(stack.settings, "PROMETHEUS_PORT"),
        alertmanager=_address(stack.settings, "ALERTMANAGER_PORT"),
        servers=stack,
        faults_token=_token(stack.settings.folder("SECRETS_DIR") / "faults_token"),
        load_metrics_port=stack.settings.port("LOCUST_METRICS_PORT"),
    )
    for name, url in (("Prometheus", target.prometheus), ("Alertmanager", target.alertmanager)):
        try:
            http.get(f"{url}/-/ready", TIMEOUT)
        except OSError:
            raise DrillError(f"No {name} answers at {url}. `make up` starts the stack.") from None
    return target


def _address(settings: Settings, port: str) -> str:
    return f"http://127.0.0.1:{settings.port(port)}"


def _token(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
