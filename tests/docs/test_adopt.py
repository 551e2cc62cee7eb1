"""docs/adopt.md, step by step and literally, on a service that knows nothing of this project."""

from __future__ import annotations

import itertools
import json
import os
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
import pytest
import yaml

from ops.paths import PROJECT
from ops.programs import find
from ops.servers import Server, plain_environment
from ops.servers import prometheus as prometheus_server
from tests import servers
from tests.grafana.dashboards import Target, substituted, targets
from tests.servers import Alertmanager, Postgres, Prometheus, wait_until, web_server
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import anthropic_stream, anthropic_whole, openai_stream, openai_whole

GUIDE = (PROJECT / "docs" / "adopt.md").read_text()

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


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$.*?(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def adopt(target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops", "adopt", f"TARGET={target}", *options]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_a_strange_service_has_metrics_dashboards_and_alerts(
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
    port = servers.free_port()
    addresses, start = blocks(section("Prometheus"), "bash")
    [receiver] = blocks(section("Alertmanager"), "bash")
    create_role, start_exporter = blocks(section("Database"), "bash")
    commands -= {addresses, start, receiver, create_role, start_exporter}
    config = service / "monitoring" / "prometheus" / "prometheus.yml"
    servers.faster(config.parent)

    alertmanager = start_alertmanager(service / "monitoring" / "alertmanager")

    def as_the_guide_says(own: int) -> Server:
        """Prometheus on this port; only addresses and the folder of its data are not the guide's."""
        ports = {"8000": port, "9090": own, "9093": alertmanager.port}
        steps = [
            re.sub("|".join(ports), lambda found: str(ports[found[0]]), step) for step in (addresses, receiver, start)
        ]
        for step in steps[:2]:
            subprocess.run(["bash", "-ec", step], cwd=service, check=True)
        command = steps[2].strip().replace(" prometheus ", f" {find('prometheus')['prometheus']} ")
        command += f" --web.listen-address=127.0.0.1:{own} --storage.tsdb.path={tmp_path / 'data'}"
        server = prometheus_server(config, tmp_path / "data", own)
        return replace(server, command=("bash", "-ec", f"cd {service} && exec env {command}"), environment={})

    dsn = postgres.create_database().replace("postgresql://", "postgresql+psycopg://")
    with serving(service, port, dsn) as url, ExitStack() as running:
        prometheus = servers.start(as_the_guide_says, tmp_path, Prometheus)
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
    port = servers.free_port()
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


# Runs blocks of the guide one after the other, as a module with `await` at its top would.
RUNNER = """
import ast, asyncio, inspect, json, sys
from prometheus_client import generate_latest

async def main():
    names = {"question": "Why?", "messages": [{"role": "user", "content": "Why?"}]}
    for block in json.loads(sys.stdin.read()):
        code = compile(block, "docs/adopt.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result

asyncio.run(main())
print(generate_latest().decode())
"""


def test_calls_of_models_are_counted_as_the_guide_has_them(tmp_path: Path) -> None:
    """With the official SDKs, against real protocols."""
    (tmp_path / "app").mkdir()
    assert adopt(tmp_path, "PIECES=llm", "PACKAGE=app/telemetry").returncode == 0
    with fake_provider.running() as provider:
        provider.replies = [openai_whole(), openai_stream(), anthropic_whole(), anthropic_stream()]
        keys = {f"{name}_API_KEY": "none" for name in ("OPENAI", "ANTHROPIC")}
        urls = {"OPENAI_BASE_URL": provider.openai_url, "ANTHROPIC_BASE_URL": provider.anthropic_url}
        run = subprocess.run(
            [sys.executable, "-c", RUNNER],
            input=json.dumps(blocks(section("LLM calls"), "python")),
            cwd=tmp_path,
            env={**os.environ, **keys, **urls},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert run.returncode == 0, run.stderr

    def value(name: str, **labels: str) -> float:
        wanted = [f'{label}="{text}"' for label, text in labels.items()]
        lines = [line for line in run.stdout.splitlines() if line.startswith(name) and all(w in line for w in wanted)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    # Two calls each, and what the last block counts by hand.
    assert value("llm_requests_total{", model="gpt-5-mini", outcome="success") == 2
    assert value("llm_requests_total{", model="claude-haiku-4-5", outcome="success") == 2
    assert value("llm_tokens_total{", model="gpt-5-mini", type="input") == 2 * 120 + 120
    assert value("llm_tokens_total{", model="gpt-5-mini", type="output") == 2 * 30 + 30
    assert value("llm_tokens_total{", model="claude-haiku-4-5", type="input") == 2 * 140
    assert value("llm_tokens_total{", model="claude-haiku-4-5", type="output") == 2 * 30
    assert value("llm_cost_usd_total{", model="claude-haiku-4-5") > 0
    assert value("llm_unpriced_requests_total{") == 0


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
    for suffix, le in (("bucket", '0.1"'), ("bucket", '0.5"'), ("bucket", '+Inf"'), ("count", ""), ("sum", "")):
        bound = f',le="{le}' if le else ""
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


def test_each_piece_is_whole_alone(tmp_path: Path) -> None:
    for piece, module in (("middleware", "http"), ("llm", "llm"), ("database", "database"), ("users", "users")):
        target = tmp_path / piece
        target.mkdir()
        assert adopt(target, f"PIECES={piece}", "PACKAGE=metrics").returncode == 0
        code = f"import metrics.{module}, sys; assert 'app' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=target, check=True)


# What a service has of its own around the guide's lines on active users; the last line signs in, and asks.
SIGNED_IN = {
    "OAuth2PasswordBearer": """
from fastapi import FastAPI
from starlette.testclient import TestClient
def verify(token): return token.removeprefix("token-of-")
{guide}
app = FastAPI()
@app.get("/me")
def me(user: Annotated[str, Depends(current_user)]) -> str: return user
client = TestClient(app)
for user in ("Ada", "Grace", "Ada"):
    client.get("/me", headers={{"Authorization": f"Bearer token-of-{{user}}"}}).raise_for_status()
assert client.get("/me").status_code == 401
""",
    "session": """
from fastapi import FastAPI, Request
from starlette.middleware.sessions import SessionMiddleware
from starlette.testclient import TestClient
app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key="secret")
{guide}
@app.post("/login/{{name}}")
def login(name: str, request: Request) -> None: request.session["user_id"] = name
@app.get("/me")
def me(request: Request) -> None: pass
for user in ("Ada", "Grace"):
    client = TestClient(app)
    client.get("/me").raise_for_status()
    client.post(f"/login/{{user}}").raise_for_status()
    client.get("/me").raise_for_status()
""",
    "state": """
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient
app = FastAPI()
{guide}
def authenticate(request: Request) -> None: request.state.user_id = request.headers.get("user")
@app.get("/me", dependencies=[Depends(authenticate)])
def me() -> None: pass
client = TestClient(app)
for user in ("Ada", "Grace", "Ada"): client.get("/me", headers={{"user": user}}).raise_for_status()
client.get("/me").raise_for_status()
""",
}


@pytest.mark.parametrize("kind", SIGNED_IN)
def test_users_are_counted_however_they_sign_in(tmp_path: Path, kind: str) -> None:
    assert adopt(tmp_path, "PIECES=users", "PACKAGE=app/telemetry").returncode == 0
    [lines] = [block for block in blocks(section("Active users"), "python") if kind in block]
    count = "from app.telemetry.users import active_users\nassert active_users.counts()['5m'] == 2\n"
    code = SIGNED_IN[kind].format(guide=lines) + count
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("mount_first", "found"), [(True, False), (False, True)])
def test_metrics_stand_above_a_mount_at_the_root(tmp_path: Path, mount_first: bool, found: bool) -> None:
    assert adopt(tmp_path, "PIECES=middleware", "PACKAGE=app/telemetry").returncode == 0
    (tmp_path / "page").mkdir()
    mount = "app.mount('/', StaticFiles(directory='page'))\n"
    [lines] = blocks(section("Middleware"), "python")
    code = "from fastapi import FastAPI\nfrom starlette.staticfiles import StaticFiles\napp = FastAPI()\n"
    code += mount + lines if mount_first else lines + mount
    code += "from starlette.testclient import TestClient\nprint(TestClient(app).get('/metrics').status_code)\n"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == ("200\n" if found else "404\n"), run.stderr


def test_linters_leave_the_copies_alone(tmp_path: Path) -> None:
    assert adopt(tmp_path, "PACKAGE=app/telemetry").returncode == 0
    (tmp_path / "app" / "__init__.py").touch()
    use = "from app.telemetry.http import PrometheusMiddleware\n\nMIDDLEWARE = PrometheusMiddleware\n"
    (tmp_path / "app" / "main.py").write_text(use)
    [configuration] = blocks(section("Copy or install"), "toml")
    strict = '[tool.ruff.lint]\nselect = ["ALL"]\nignore = ["CPY", "D", "INP"]\n[tool.mypy]\nstrict = true\n'
    project = configuration.replace("[project]\n", '[project]\nname = "my-service"\nversion = "1"\n')
    (tmp_path / "pyproject.toml").write_text(strict + project)
    for command in (["ruff", "check"], ["mypy", "--cache-dir", str(tmp_path / "cache"), "app/main.py"]):
        lint = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout + lint.stderr


def test_the_service_has_its_own_name_everywhere(tmp_path: Path) -> None:
    service = tmp_path / "shop"
    service.mkdir()
    for options, name in (((), "shop"), (("SERVICE=web-shop", "OVERWRITE=1"), "web-shop")):
        assert adopt(service, "PIECES=prometheus runbooks dashboards alertmanager", *options).returncode == 0
        config = yaml.safe_load((service / "monitoring" / "prometheus" / "prometheus.yml").read_text())
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        assert name in jobs
        assert "app" not in jobs
        for job in (name, "postgres"):
            assert {"target_label": "service", "replacement": name} in jobs[job]["relabel_configs"]
        runbooks = "".join(file.read_text() for file in (service / "monitoring" / "runbooks").glob("*.md"))
        assert f'{{job="{name}"}}' in runbooks
        assert 'job="app"' not in runbooks
        everything = b"".join(tree(service / "monitoring" / "grafana").values())
        assert b'"app"' not in everything.replace(b'"app": ', b"")
    refused = adopt(service, "SERVICE=my service")
    assert refused.returncode == 1
    assert "SERVICE=my service" in refused.stderr


def test_a_grafana_that_has_data_sources_keeps_them(tmp_path: Path) -> None:
    """Grafana takes equal names for the same data source, and does not start with two defaults."""
    assert adopt(tmp_path, "PIECES=dashboards").returncode == 0
    folder = tmp_path / "monitoring" / "grafana"
    [file] = (folder / "provisioning" / "datasources").iterdir()
    prometheus, alertmanager = yaml.safe_load(file.read_text())["datasources"]
    assert (prometheus["name"], prometheus["isDefault"]) == ("Sightline Prometheus", False)
    assert "isDefault" not in alertmanager
    assert prometheus["jsonData"]["alertmanagerUid"] == alertmanager["uid"] == "sightline-alertmanager"
    assert prometheus["uid"] == "sightline-prometheus"
    assert alertmanager["name"] == "Sightline Alertmanager"
    [file] = (folder / "provisioning" / "dashboards").iterdir()
    assert [one["folder"] for one in yaml.safe_load(file.read_text())["providers"]] == ["Sightline"]
    for file in (folder / "dashboards").iterdir():
        dashboard = json.loads(file.read_text())
        assert dashboard.keys() & {"__inputs", "id"} == set(), (
            "the import page would ask, the API take it for an update"
        )
        assert dashboard["uid"].startswith("sightline-")
        assert '"uid": "prometheus"' not in file.read_text()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    assert adopt(tmp_path).returncode == 0
    assert adopt(tmp_path).returncode == 0, "what is equal is in nobody's way"
    mine = tmp_path / "telemetry" / "http" / "middleware.py"
    mine.write_text("# mine\n")
    (tmp_path / "telemetry" / "users.py").unlink()
    before = tree(tmp_path)
    refused = adopt(tmp_path)
    assert refused.returncode == 1
    assert str(mine) in refused.stderr
    assert "OVERWRITE=1" in refused.stderr
    assert tree(tmp_path) == before, "nothing at all is copied"
    replaced = adopt(tmp_path, "OVERWRITE=1")
    assert replaced.returncode == 0
    assert "1 files replaced" in replaced.stdout
    assert mine.read_bytes() == (PROJECT / "app" / "telemetry" / "http" / "middleware.py").read_bytes()


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (".", ("PACKAGE=.",), "such as PACKAGE=telemetry."),
        (".", ("PACKAGE=src",), "such as PACKAGE=src/telemetry."),
        (".", ("PACKAGE=src/service/metrics",), "metrics.py exists"),
        (".", ("PACKAGE=src/service",), "already is a package of your service. Choose"),
        (".", ("PACKAGE=src/service", "OVERWRITE=1"), "such as PACKAGE=src/service/telemetry"),
        (".", ("PACKAGE=src/my-pkg",), "cannot import a package named 'my-pkg'. Use PACKAGE=src/my_pkg."),
        (".", ("PACKAGE=src/2fast",), "cannot import a package named '2fast'. Use PACKAGE=src/_2fast."),
        (".", ("PACKAGE=src/http",), "the standard library has a module of the same name. Choose"),
        ("src/service/metrics.py", (), "is not a folder"),
        ("files", (), "files/monitoring\n"),
        ("files", ("PIECES=middleware", "PACKAGE=monitoring/telemetry"), "folders are needed"),
        ("nowhere", (), "TARGET= names the folder"),
        (".", ("PIECES=moon",), "Unknown piece: moon"),
        (".", ("PACKAGE=../elsewhere",), "PACKAGE is a folder inside TARGET"),
        (str(PROJECT / "docs"), (), "inside this project"),
    ],
)
def test_a_wrong_call_says_what_to_do(tmp_path: Path, target: str, options: tuple[str, ...], says: str) -> None:
    for file in ("src/service/__init__.py", "src/service/metrics.py", "src/script.py", "files/monitoring"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    before = tree(tmp_path)
    result = adopt(tmp_path / target, *options)
    assert result.returncode == 1
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert tree(tmp_path) == before, "nothing at all is copied"


@pytest.mark.parametrize("options", [(), ("OVERWRITE=1",)])
@pytest.mark.parametrize("link", ["monitoring", "monitoring/prometheus/prometheus.yml", "telemetry/http"])
def test_nothing_is_written_through_links_that_lead_out(tmp_path: Path, link: str, options: tuple[str, ...]) -> None:
    service, elsewhere = tmp_path / "service", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("not to be replaced")
    (service / link).parent.mkdir(parents=True)
    (service / link).symlink_to(elsewhere / "file" if link.endswith(".yml") else elsewhere)
    before = tree(tmp_path)
    result = adopt(service, *options)
    assert result.returncode == 1
    assert "Symbolic links lead outside the target" in result.stderr
    assert str(service / link) in result.stderr
    assert tree(tmp_path) == before


def test_links_inside_of_the_target_are_followed(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "monitoring").symlink_to("deploy")
    assert adopt(tmp_path, "PIECES=prometheus").returncode == 0
    assert (tmp_path / "deploy" / "prometheus" / "prometheus.yml").is_file()


def test_the_report_fits_a_screen(tmp_path: Path) -> None:
    result = adopt(tmp_path)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    copied = sum(int(count) for count in re.findall(r"^ +(\d+)  \S", result.stdout, re.MULTILINE))
    assert f"{copied} files copied" in lines[0]
    assert copied == len(tree(tmp_path))


def test_packages_of_all_kinds_take_the_modules(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").touch()
    for package in ("service/telemetry", "new/telemetry", "service/telemetry", "lone"):
        assert adopt(tmp_path, "PIECES=middleware", f"PACKAGE={package}").returncode == 0
    assert adopt(tmp_path, "PIECES=prometheus dashboards", "PACKAGE=.").returncode == 0, "no modules"


def test_an_earlier_copy_is_updated_and_never_taken_for_a_package_of_ones_own(tmp_path: Path) -> None:
    assert adopt(tmp_path, "PIECES=users", "PACKAGE=service/telemetry").returncode == 0
    (tmp_path / "service" / "telemetry" / "users.py").write_text("# an earlier release\n")
    refused = adopt(tmp_path, "PIECES=users", "PACKAGE=service/telemetry")
    assert "OVERWRITE=1" in refused.stderr
    assert adopt(tmp_path, "PIECES=users", "PACKAGE=service/telemetry", "OVERWRITE=1").returncode == 0


def test_git_never_sees_a_secret(tmp_path: Path) -> None:
    assert adopt(tmp_path, "PIECES=prometheus alertmanager postgres").returncode == 0
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for folder, name in (("prometheus", "metrics_token"), ("alertmanager", "slack_url"), ("postgres", "password")):
        (tmp_path / "monitoring" / folder / "secrets" / name).write_text("secret")
    seen = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "prometheus/prometheus.yml" in seen.stdout
    assert "metrics_token" not in seen.stdout
    assert "slack_url" not in seen.stdout
    assert "password" not in seen.stdout


# What a service may have of its own, in the way of many tutorials.
OWN = "from prometheus_client import Counter; Counter('http_requests_total', 'Requests.', ['path'])"
OURS = "from telemetry.http import PrometheusMiddleware"


@pytest.mark.parametrize("code", [f"{OWN}\n{OURS}", f"{OURS}\n{OWN}"])
def test_names_that_exist_already_stop_the_start_as_the_guide_says(tmp_path: Path, code: str) -> None:
    assert adopt(tmp_path, "PIECES=middleware").returncode == 0
    [message] = re.findall(r"`(Duplicated timeseries[^`]*)`", section("From another instrumentation"))
    start = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert start.returncode == 1
    assert message in start.stderr
