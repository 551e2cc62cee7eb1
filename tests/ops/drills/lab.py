"""A whole stack of its own for the drills: the native stack on free ports with the accelerated configuration."""

from __future__ import annotations

import json
import os
import random
import secrets as dice
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import psycopg

from ops import programs, secrets
from ops.drills.target import Target
from ops.health import scraped
from ops.packages import NEEDED, POSTGRES
from ops.paths import PROJECT
from ops.processes import ProcessStack
from ops.servers import HOST
from ops.settings import DEFAULTS, Settings
from ops.supervise import config
from tests.ops.drills.accelerate import LEAST, accelerate, accelerated
from tests.running import temporary_folder, wait_until


class Receiver:
    """A webhook that remembers which alerts it received as firing, and as resolved."""

    def __init__(self) -> None:
        self.fired: set[str] = set()
        self.resolved: set[str] = set()
        self.refuse = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not receiver.refuse:
                    for alert in body["alerts"]:
                        name = alert["labels"]["alertname"]
                        (receiver.fired if alert["status"] == "firing" else receiver.resolved).add(name)
                self.send_response(400 if receiver.refuse else 200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self.server.server_address[1]}/"

    @contextmanager
    def listening(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.server.shutdown()
            self.server.server_close()

    def forget(self) -> None:
        self.fired.clear()
        self.resolved.clear()


def free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Lab:
    """The running stack, and what only a test may touch: its configuration, its database, its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.receiver = Receiver()
        self.reloaded = 0.0
        # Of those that the kernel gives to nobody's outgoing connection while a drill has a server stopped.
        ports = filter(free, random.sample(range(20_000, 30_000), 10_000))
        (folder / "disk").mkdir()
        self.settings = Settings(
            {
                **DEFAULTS,
                **{name: str(next(ports)) for name in DEFAULTS if name.endswith("_PORT")},
                "SIGHTLINE_STATE": str(folder / "state"),
                "SECRETS_DIR": str(folder / "secrets"),
                "FAULTS_ENABLED": "true",
                "FAULTS_TOKEN_FILE": str(folder / "secrets" / "faults_token"),
                "FAULTS_DIR": str(folder / "faults"),
                "LLM_PROVIDER": "simulated",
                "LLM_MODELS": "brand-new-model",
                "DATABASE_POOL_TIMEOUT": "1",
            }
        )
        self.native = ProcessStack(self.settings)
        self.supervisor = self.native.supervisor
        self.prometheus_folder = self.native.state / "run" / "prometheus"
        self.alertmanager_folder = self.native.state / "run" / "alertmanager"

    @property
    def stack(self) -> Target:
        def url(port: str) -> str:
            return f"http://{HOST}:{self.settings.port(port)}"

        return Target(
            app=url("APP_PORT"),
            prometheus=url("PROMETHEUS_PORT"),
            alertmanager=url("ALERTMANAGER_PORT"),
            servers=self.native,
            faults_token=(self.folder / "secrets" / "faults_token").read_text(),
        )

    def start(self) -> None:
        programs.find(*NEEDED, *POSTGRES)
        secrets.generate(self.native.secrets)
        token = self.folder / "secrets" / "faults_token"
        if not token.exists():
            token.write_text(dice.token_urlsafe(24))
        webhook = self.folder / "secrets" / "alertmanager" / "webhook_url"
        webhook.write_text(self.receiver.url)
        self.native.prepare()
        accelerate(self.prometheus_folder, self.alertmanager_folder)
        servers = [accelerated(server) for server in self.native.servers()]
        self.supervisor.start(config(self.supervisor, servers, "a drill"))
        for server in servers:
            wait_until(lambda server=server: server.probe() is None, 120)  # type: ignore[misc]
        wait_until(lambda: (targets := scraped(self.native)) and set(targets.values()) == {"up"}, 60)

    def main_process(self, service: str) -> psutil.Process:
        return psutil.Process(self.stack.servers.pids(service)[0])

    def reload(self, service: str) -> None:
        if service == "prometheus":
            self.reloaded = time.time()
        self.main_process(service).send_signal(signal.SIGHUP)

    def knows_alertmanager(self) -> bool:
        """Whether Prometheus has found Alertmanager again, which takes seconds when it loads its configuration.

        And what it dropped meanwhile is no longer in the window (LEAST) of the alert about that, which would fire in
        the next drill.
        """
        loaded = self.stack.query("prometheus_config_last_reload_success_timestamp_seconds")
        found = self.stack.query("prometheus_notifications_alertmanagers_discovered")
        dropped = self.stack.query(f"increase(prometheus_notifications_dropped_total[{LEAST:g}s]) > 0")
        return float(loaded[0]["value"][1]) >= self.reloaded and float(found[0]["value"][1]) >= 1 and not dropped

    @contextmanager
    def changed(self, file: Path, text: str, service: str | None) -> Iterator[None]:
        """A configuration file with another text; `service` is notified, then and when the file is restored."""
        before = file.read_text() if file.exists() else None
        file.write_text(text)
        try:
            if service:
                self.reload(service)
            yield
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_text(before)
            if service:
                self.reload(service)

    def superuser(self) -> psycopg.Connection[Any]:
        password = (self.folder / "secrets" / "postgres_password").read_text()
        return psycopg.connect(
            host=HOST,
            port=self.settings.port("POSTGRES_PORT"),
            dbname="sightline",
            user="postgres",
            password=password,
            autocommit=True,
        )

    def post(self, path: str, body: dict[str, Any], key: str = "") -> Any:
        request = urllib.request.Request(
            f"{self.stack.app}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Users of the service, all the time until the end."""
        environment = {
            **os.environ,
            "HOST": self.stack.app,
            "USERS": "12",
            "THINK": "0.2-1",
            "DURATION": "1h",
            "SHAPE": "steady",
            "LOCUST_METRICS_PORT": str(self.settings.port("LOCUST_METRICS_PORT")),
        }
        with open(self.folder / "traffic.log", "wb") as log:
            load = subprocess.Popen(
                [sys.executable, "-m", "loadtest"], cwd=PROJECT, env=environment, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: self.rate() > 5, 120)
            yield
        finally:
            load.kill()
            load.wait()

    def rate(self) -> float:
        """Requests per second that Prometheus sees now."""
        result = self.stack.query("sum(rate(http_requests_total[5s]))")
        return float(result[0]["value"][1]) if result else 0.0


@contextmanager
def running_lab() -> Iterator[Lab]:
    folder = temporary_folder("sightline-lab-")
    folder.chmod(0o711)
    lab = Lab(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(lab.supervisor.stop)
        stack.enter_context(lab.receiver.listening())
        lab.start()
        stack.enter_context(lab.traffic())
        yield lab
