"""A stack to break: the service, its servers and users, what the tiles say of it, and who breaks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg

from tests import servers
from tests.grafana.dashboards import DASHBOARDS, panels, substituted
from tests.grafana.tiles import Tile, tile
from tests.running import Running, meanwhile, wait_until
from tests.servers import Postgres, Prometheus
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import FakeProvider, openai_whole

FAULTS_TOKEN = "of a test"


@dataclass
class Stack:
    """The servers, and users who go on whatever happens. Scrapes and rules come every 3 seconds instead of every 15."""

    app: Running
    postgres: Postgres
    provider: FakeProvider
    prometheus: Prometheus
    alertmanager: Running
    exporter: Running
    node: Running
    environment: dict[str, str]
    key: str = ""
    idle: dict[tuple[str, str], Tile] = field(default_factory=dict)
    """(dashboard, title) -> what the tile said before the first request."""

    @property
    def url(self) -> str:
        return self.app.url

    @property
    def configuration(self) -> Path:
        """Prometheus' file."""
        (file,) = (
            word.partition("=")[2] for word in self.prometheus.server.command if word.startswith("--config.file=")
        )
        return Path(file)

    def tile(self, dashboard: str, title: str) -> Tile:
        return tile(self.prometheus, dashboard, title)

    def tiles(self, dashboard: str) -> dict[tuple[str, str], Tile]:
        """All of a dashboard."""
        titles = [panel["title"] for panel in panels(DASHBOARDS[dashboard]) if panel["type"] == "stat"]
        return {(dashboard, title): self.tile(dashboard, title) for title in titles}

    def firing(self, dashboard: str) -> list[dict[str, str]]:
        """The labels of each row of the table of alerts."""
        (panel,) = (p for p in panels(DASHBOARDS[dashboard]) if p["title"] == "Firing alerts")
        return [dict(labels) for labels in self.prometheus.query(substituted(panel["targets"][0]["expr"]))]

    def sql(self, *statements: str) -> None:
        """Executes them as PostgreSQL's superuser in the service's database, each in a transaction of its own."""
        with psycopg.connect(self.postgres.superuser_dsn, dbname="sightline", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def targets(self, job: str, *more: str) -> Iterator[None]:
        """Prometheus scrapes these addresses, too, until the end of the context."""
        file = self.configuration.parent / "targets" / f"{job}.yml"
        before = file.read_text()
        (group,) = json.loads(before)
        file.write_text(json.dumps([{**group, "targets": [*group["targets"], *more]}]))
        try:
            yield
        finally:
            file.write_text(before)

    @contextmanager
    def fault(self, name: str, **parameters: str | float) -> Iterator[None]:
        """A fault of the service, until the end of the context."""
        headers = {"Authorization": f"Bearer {FAULTS_TOKEN}"}
        url = f"{self.url}/faults/{name}"
        with httpx2.Client(headers=headers, timeout=60, trust_env=False) as client:
            client.post(url, json={"seconds": 600, **parameters}).raise_for_status()
            try:
                yield
            finally:
                client.delete(url).raise_for_status()

    def sign_up(self) -> None:
        answer = httpx2.post(f"{self.url}/users", json={"name": "somebody"}, trust_env=False, timeout=60)
        self.key = answer.json()["api_key"]

    def client(self) -> httpx2.Client:
        """A signed-in user's."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False)

    @contextmanager
    def users(self, stream: bool = False) -> Iterator[None]:
        """Requests one after the other until the end of the context, however they are answered.

        stream: whether the model's answers are streamed.
        """

        def work(over: threading.Event) -> None:
            with self.client() as client:
                while not over.wait(0.2):
                    for request in (
                        ("GET", "/items?limit=5", None),
                        ("GET", "/users/me", None),
                        ("POST", "/chat", {"message": "How are you?", "stream": stream}),
                    ):
                        with suppress(httpx2.HTTPError):  # not answered in time is an outage, too
                            method, path, body = request
                            client.request(method, path, json=body)

        with meanwhile(work):
            yield


@contextmanager
def running(key_file: Path) -> Iterator[Stack]:
    """The stack after some traffic.

    key_file: holds what the provider takes for a key.
    """
    with servers.postgres() as postgres, fake_provider.running() as provider:
        provider.replies = [openai_whole()]
        environment = {
            **postgres.environment(),
            "LLM_PROVIDER": "openai",
            "OPENAI_API_KEY_FILE": str(key_file),
            "OPENAI_BASE_URL": provider.openai_url,
            "FAULTS_ENABLED": "true",
            "FAULTS_TOKEN": FAULTS_TOKEN,
        }
        with (
            servers.postgres_exporter(postgres) as exporter,
            servers.node_exporter() as node,
            servers.alertmanager("route: {receiver: none}\nreceivers: [{name: none}]\n") as alertmanager,
            servers.app(environment) as app,
            servers.prometheus_of_the_stack(
                "3s", app=app, postgres=exporter, node=node, alertmanager=alertmanager
            ) as prometheus,
        ):
            stack = Stack(app, postgres, provider, prometheus, alertmanager, exporter, node, environment)
            wait_until(lambda: prometheus.query("sightline:slo_objective:ratio"))
            for title in ("Error rate", "HTTP p95", "LLM errors", "Model p95"):  # two scrapes and an evaluation
                wait_until(lambda: stack.tile("overview", title).text == "idle")  # noqa: B023  is called at once
            for dashboard in ("overview", "http", "llm", "loadtest"):
                stack.idle |= stack.tiles(dashboard)
            stack.sign_up()
            with stack.users():
                wait_until(lambda: (stack.tile("overview", "Model p95").value or 0) > 0)
                for dashboard, title in (("database", "TPS"), ("overview", "HTTP p95"), ("overview", "Query p95")):
                    wait_until(lambda: (stack.tile(dashboard, title).value or 0) > 0)  # noqa: B023
            yield stack
