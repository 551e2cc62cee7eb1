"""docs/adopt.md, step by step and literally, on a service that is unrelated to this project."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psycopg

from ops.programs import find
from ops.servers import Server, plain_environment
from ops.servers import prometheus as prometheus_server
from prometheus.src.settings import SETTINGS
from tests import servers
from tests.docs.guide import GUIDE, adopt, blocks, section
from tests.grafana.dashboards import Target, substituted, targets
from tests.running import free_port, start, wait_until, web_server
from tests.servers import Alertmanager, Postgres, Prometheus

# A typical service: FastAPI, SQLAlchemy, a way to sign in.
SERVICE = """
import os

from fastapi import FastAPI, HTTPException, Request
from sqlalchemy import create_engine

app = FastAPI()
engine = create_engine(os.environ["DATABASE_URL"])


@app.get("/hello/{name}")
def hello(name: str, request: Request) -> str:
    request.state.user_id = name
    with engine.connect() as connection:
        return connection.execute(GREETING).scalar_one()


@app.get("/broken")
def broken() -> None:
    raise HTTPException(500)


@app.get("/ask")
def ask() -> None:
"""
# What of the guide must be seen on the Overview in the end, with this service's own numbers.
SHOWN = {"Request rate by status", "Response time", "Error rate by endpoint", "Active users", "Token usage"}
SHOWN |= {"Query time", "Connection pool"}


@contextmanager
def serving(folder: Path, port: int, dsn: str) -> Iterator[str]:
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--workers", "2"]
    environment = {**plain_environment(), "DATABASE_URL": dsn}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: urllib.request.urlopen(f"{url}/metrics", timeout=60).status == 200)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_an_unrelated_service_has_metrics_dashboards_and_alerts(
    tmp_path: Path,
    postgres: Postgres,
    start_alertmanager: Callable[..., Alertmanager],
    summarize: Callable[[str, str], None],
) -> None:
    service = tmp_path / "my-service"
    (service / "app").mkdir(parents=True)
    (service / "app" / "__init__.py").touch()

    commands = {*blocks(GUIDE, "bash"), *re.findall(r"`((?:curl|amtool) [^`]+)`", GUIDE)}
    [command] = blocks(GUIDE.split("## ")[0], "bash")
    [installation] = blocks(section("Copy or install"), "bash")
    assert command == "make adopt TARGET=../my-service PACKAGE=app/telemetry\n"
    result = adopt(service, "PACKAGE=app/telemetry")
    assert result.returncode == 0, result.stderr
    commands -= {command, installation}  # tests/telemetry/test_package.py installs, into an empty environment

    configure, *_, count = blocks(section("LLM calls"), "python")
    lines = "".join("".join(blocks(section(title), "python")) for title in ("Middleware", "Database"))
    # This service sets request.state.user_id, and has one replica.
    *_, lines_of_users, _store = blocks(section("Active users"), "python")
    (service / "app" / "main.py").write_text(
        SERVICE + textwrap.indent(count, "    ") + configure + lines + lines_of_users
    )
    port = free_port()
    addresses, launch = blocks(section("Prometheus"), "bash")
    [receiver] = blocks(section("Alertmanager"), "bash")
    create_role, start_exporter = blocks(section("Database"), "bash")
    commands -= {addresses, launch, receiver, create_role, start_exporter}
    config = service / "monitoring" / "prometheus" / "prometheus.yml"
    servers.faster(config.parent)

    alertmanager = start_alertmanager(service / "monitoring" / "alertmanager")

    def as_the_guide_says(own: int) -> Server:
        """Prometheus on this port; only addresses and the folder of its data are not the guide's."""
        ports = {"8000": port, "9090": own, "9093": alertmanager.port}
        steps = [
            re.sub("|".join(ports), lambda found: str(ports[found[0]]), step) for step in (addresses, receiver, launch)
        ]
        for step in steps[:2]:
            subprocess.run(["bash", "-ec", step], cwd=service, check=True)
        command = steps[2].strip().replace(" prometheus ", f" {find('prometheus')['prometheus']} ")
        command += f" --web.listen-address=127.0.0.1:{own} --storage.tsdb.path={tmp_path / 'data'}"
        server = prometheus_server(config, tmp_path / "data", own)
        return replace(server, command=("bash", "-ec", f"cd {service} && exec env {command}"), environment={})

    dsn = postgres.create_database().replace("postgresql://", "postgresql+psycopg://")
    with serving(service, port, dsn) as url, ExitStack() as running:
        prometheus = start(as_the_guide_says, tmp_path, Prometheus)
        running.callback(prometheus.stop)

        def drive() -> None:
            for number in range(20):
                urllib.request.urlopen(f"{url}/hello/user-{number % 10}", timeout=60).read()
                urllib.request.urlopen(f"{url}/ask", timeout=60).read()
                with suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(f"{url}/broken", timeout=60)

        def has(expression: str) -> bool:
            drive()
            return bool(prometheus.query(expression))

        wait_until(lambda: has('rate(http_requests_total{endpoint="/broken", status_code="500"}[5s]) > 0'))
        wait_until(lambda: has('rate(db_query_duration_seconds_bucket{query_name="greeting", le="+Inf"}[5s]) > 0'))
        wait_until(lambda: has('active_users{window="5m"} >= 9'))
        wait_until(lambda: has('rate(llm_tokens_total{model="gpt-5-mini"}[5s]) > 0'))
        # The rules know the service by its job, and an alert is on its way.
        wait_until(lambda: has('job:http_errors:ratio_rate5m{job="my-service"} > 0.3'))
        wait_until(lambda: has('ALERTS{alertname="HttpEndpointFailing", endpoint="/broken", service="my-service"}'))
        # It reaches its Alertmanager, its links lead to runbooks, and nothing critical is said but what is provoked.
        wait_until(lambda: len(prometheus.api("alertmanagers")["activeAlertmanagers"]) == 1)
        wait_until(lambda: list(prometheus.targets().values()) == ["up"] * 3)  # no others
        alerts = prometheus.api("alerts")["alerts"]
        [runbook] = {
            alert["annotations"]["runbook_url"]
            for alert in alerts
            if alert["labels"]["alertname"] == "HttpEndpointFailing"
        }
        with urllib.request.urlopen(runbook, timeout=60) as page:
            assert page.read().startswith(b"# HttpEndpointFailing")
        firing = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
        critical = {labels["alertname"] for labels in firing if labels["severity"] == "critical"}
        assert critical <= {"AvailabilityBurn"}
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        # Its numbers are on the dashboards. In front of it there is no proxy.
        queries = [t for t in targets() if t.dashboard in ("http", "overview") and "haproxy_" not in t.expr]
        http = [target for target in queries if target.dashboard == "http"]

        def shown() -> list[Target]:
            drive()
            found = [q for q in queries if prometheus.query(substituted(q.expr, rate_interval="10s", span="60s"))]
            many = len([target for target in found if target in http]) > 0.8 * len(http)
            return found if many and {target.panel for target in found} >= SHOWN else []

        found = [target for target in wait_until(shown) if target in http]
        summarize(
            "adoption", f"{len(found)} of {len(http)} queries of the HTTP dashboard have data of a strange service"
        )

        # And each section's last word.
        for command in sorted(commands):
            if "localhost:9187" in command:
                continue  # test_the_exporter_starts_as_the_guide_says
            if command.startswith("curl"):
                address, _, search = command.removeprefix("curl -s ").partition(" | ")
                with urllib.request.urlopen("http://" + address.replace("8000", str(port)), timeout=60) as answer:
                    subprocess.run(["bash", "-c", search], input=answer.read(), stdout=subprocess.DEVNULL, check=True)
            else:
                program, rest = command.split(" ", 1)
                subprocess.run([find(program)[program], *rest.split()], cwd=service, capture_output=True, check=True)


def test_the_exporter_starts_as_the_guide_says(tmp_path: Path, postgres: Postgres) -> None:
    """In a database of the service's own, in a server that knew no exporter."""
    assert adopt(tmp_path, "PIECES=postgres").returncode == 0
    create_role, start = blocks(section("Database"), "bash")
    database = postgres.create_database().rpartition("/")[2]
    port = free_port()
    environment = {
        **plain_environment(),
        "PATH": f"{find('psql')['psql'].parent}:{find('postgres_exporter')['postgres_exporter'].parent}:/usr/bin:/bin",
        "PGHOST": postgres.host,
        "PGPORT": str(postgres.port),
        "PGUSER": "postgres",
        "PGPASSWORD": (postgres.secrets / "postgres_password").read_text(),
    }
    create_role = create_role.replace("my_database", database)
    subprocess.run(["bash", "-ec", create_role], cwd=tmp_path, env=environment, check=True)
    start = start.replace("my_database", database).replace("127.0.0.1:5432", f"{postgres.host}:{postgres.port}")
    name = Path(find("postgres_exporter")["postgres_exporter"]).name
    start = start.replace(" postgres_exporter ", f" exec {name} --web.listen-address=127.0.0.1:{port} ")
    exporter = subprocess.Popen(
        ["bash", "-ec", "export " + start.replace(" exec ", "; exec ")], cwd=tmp_path, env=environment
    )
    try:
        [(address, search)] = re.findall(r"`curl -s (localhost:9187/metrics) \| (grep [^`]+)`", section("Database"))
        wait_until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).status == 200)
        with urllib.request.urlopen("http://" + address.replace("9187", str(port)), timeout=30) as answer:
            exposed = answer.read()
        subprocess.run(["bash", "-c", search], input=exposed, stdout=subprocess.DEVNULL, check=True)
        assert f'pg_stat_statements_calls_total{{datname="{database}"'.encode() in exposed
    finally:
        exporter.terminate()
        exporter.wait(60)
        with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
            connection.execute("DROP ROLE postgres_exporter")


# What these two report of one path that works, one that fails and one that is not there
# (prometheus-fastapi-instrumentator 8.1, OpenTelemetry 1.45 with http semantic conventions), N times each.
INSTRUMENTATOR = """\
http_requests_total{handler="/hello/{name}",method="GET",status="2xx"} N
http_requests_total{handler="/broken",method="GET",status="5xx"} N
http_requests_total{handler="none",method="GET",status="4xx"} N
http_requests_inprogress{handler="/hello/{name}",method="GET"} 1
"""
OPENTELEMETRY = """\
http_server_active_requests{http_request_method="GET",url_scheme="http"} 1
"""
for path, status in (("/hello/{name}", "200"), ("/broken", "500"), ("", "404")):
    for suffix, le in (("bucket", SETTINGS.latency_le), ("bucket", "+Inf"), ("count", ""), ("sum", "")):
        bound = f',le="{le}"' if le else ""
        labels = f'http_request_method="GET",http_response_status_code="{status}",http_route="{path}"'
        OPENTELEMETRY += f"http_server_request_duration_seconds_{suffix}{{{labels}{bound}}} N\n"
        labels = f'handler="{path or "none"}",method="GET"'
        INSTRUMENTATOR += f"http_request_duration_seconds_{suffix}{{{labels}{bound}}} N\n"


@contextmanager
def exposing(text: str) -> Iterator[int]:
    """The port of a server that counts its own scrapes as N."""
    scrapes = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            number = str(10 * next(scrapes))
            self.wfile.write(re.sub(r" N$", f" {number}", text, flags=re.MULTILINE).encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with web_server(Handler) as url:
        yield int(url.rpartition(":")[2])


def test_other_instrumentations_are_translated(tmp_path: Path, start_prometheus: Callable[..., Prometheus]) -> None:
    assert adopt(tmp_path, "PIECES=prometheus").returncode == 0
    home = tmp_path / "monitoring" / "prometheus"
    instrumentator, opentelemetry, rules = blocks(section("From another instrumentation"), "yaml")
    (home / "rules" / "from-opentelemetry.yml").write_text(rules)
    with exposing(INSTRUMENTATOR) as one, exposing(OPENTELEMETRY) as other:
        jobs = ((one, "instrumentator", instrumentator), (other, "opentelemetry", opentelemetry))
        config = (
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules/*.yml]\n"
        )
        config += "scrape_configs:\n"
        for port, job, block in jobs:
            config += f"  - job_name: {job}\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n{block}"
        (home / "prometheus.yml").write_text(config)
        prometheus = start_prometheus(home)
        for _, job, _ in jobs:
            errors = f'job_endpoint:http_errors:rate5m{{job="{job}", endpoint="/broken"}}'
            broken = f"{errors} == job_endpoint:http_requests:rate5m > 0"
            wait_until(lambda query=broken: prometheus.query(query))  # type: ignore[misc]
            slow = f'job_endpoint:http_slow:rate5m{{job="{job}", endpoint="/hello/{{name}}"}} == 0'
            wait_until(lambda query=slow: prometheus.query(query))  # type: ignore[misc]
            seen = prometheus.query(f'job_endpoint:http_requests:rate5m{{job="{job}"}} > 0')
            assert {dict(labels)["endpoint"] for labels in seen} == {"/hello/{name}", "/broken"}
            assert prometheus.query(f'http_requests_total{{job="{job}", endpoint="unmatched"}}')
        assert prometheus.query("http_requests_in_progress")
