"""docs/adopt.md, step by step and literally, on a service that knows nothing of this project."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from native.paths import PROJECT
from native.servers import plain_environment
from tests import servers
from tests.configs.dashboards import substituted, targets
from tests.servers import Postgres, Prometheus, wait_until

GUIDE = (PROJECT / "docs" / "adopt.md").read_text()

# A service as somebody may have it: FastAPI, SQLAlchemy, a way to sign in.
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
"""


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$.*?(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def adopt(target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adopt", str(target), *options]
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
        wait_until(lambda: urllib.request.urlopen(f"{url}/metrics", timeout=5).status == 200)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_a_strange_service_has_metrics_dashboards_and_alerts(
    tmp_path: Path, postgres: Postgres, start_prometheus: Callable[..., Prometheus]
) -> None:
    service = tmp_path / "my-service"
    (service / "app").mkdir(parents=True)
    (service / "app" / "__init__.py").touch()

    [command] = blocks(GUIDE.split("## ")[0], "bash")
    assert command == "make adopt TARGET=../my-service PACKAGE=app/telemetry\n"
    result = adopt(service, "--package", "app/telemetry")
    assert result.returncode == 0, result.stderr

    lines = "".join("".join(blocks(section(title), "python")) for title in ("Middleware", "Database", "Active users"))
    (service / "app" / "main.py").write_text(SERVICE + lines)
    port = servers.free_port()
    [addresses] = blocks(section("Prometheus"), "bash")
    subprocess.run(["bash", "-e", "-c", addresses.replace("8000", str(port))], cwd=service, check=True)
    config = service / "monitoring" / "prometheus" / "prometheus.yml"
    config.write_text(
        config.read_text()
        .replace("scrape_interval: 15s", "scrape_interval: 1s", 1)
        .replace("scrape_timeout: 10s", "scrape_timeout: 1s", 1)
        .replace("evaluation_interval: 15s", "evaluation_interval: 1s")
    )

    dsn = postgres.create_database().replace("postgresql://", "postgresql+psycopg://")
    with serving(service, port, dsn) as url:
        prometheus = start_prometheus(config.parent)

        def drive() -> None:
            for number in range(20):
                urllib.request.urlopen(f"{url}/hello/user-{number % 10}", timeout=10).read()
                with suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(f"{url}/broken", timeout=10)

        def has(expression: str) -> bool:
            drive()
            return bool(prometheus.query(expression))

        wait_until(lambda: has('rate(http_requests_total{endpoint="/broken", status_code="500"}[5s]) > 0'))
        wait_until(lambda: has('rate(db_query_duration_seconds_count{query_name="greeting"}[5s]) > 0'))
        wait_until(lambda: has('active_users{window="5m"} >= 9'))
        # The rules know the service by its job, and an alert is on its way.
        wait_until(lambda: has('job:http_errors:ratio_rate5m{job="app"} > 0.4'))
        wait_until(lambda: has('ALERTS{alertname="HttpEndpointFailing", endpoint="/broken"}'), 120)
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        # Its numbers are on the dashboards.
        queries = [target for target in targets() if target.dashboard == "http"]
        drive()
        shown = [q for q in queries if prometheus.query(substituted(q.expr, rate_interval="10s", span="60s"))]
        print(f"\n{len(shown)} of {len(queries)} queries of the HTTP dashboard have data of a strange service")
        assert len(shown) > 0.8 * len(queries)


def test_each_piece_is_whole_alone(tmp_path: Path) -> None:
    for piece, module in (("middleware", "http"), ("llm", "llm"), ("database", "database"), ("users", "users")):
        target = tmp_path / piece
        target.mkdir()
        assert adopt(target, "--pieces", piece, "--package", "metrics").returncode == 0
        code = f"import metrics.{module}, sys; assert 'app' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=target, check=True)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    assert adopt(tmp_path).returncode == 0
    assert adopt(tmp_path).returncode == 0, "what is equal is in nobody's way"
    mine = tmp_path / "telemetry" / "http.py"
    mine.write_text("# mine\n")
    (tmp_path / "telemetry" / "users.py").unlink()
    before = tree(tmp_path)
    refused = adopt(tmp_path)
    assert refused.returncode == 1
    assert str(mine) in refused.stderr
    assert "OVERWRITE=1" in refused.stderr
    assert tree(tmp_path) == before, "nothing at all is copied"
    assert adopt(tmp_path, "--overwrite").returncode == 0
    assert mine.read_bytes() == (PROJECT / "app" / "telemetry" / "http.py").read_bytes()


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("nowhere", (), "TARGET= names the folder"),
        (".", ("--pieces", "moon"), "no such piece: moon"),
        (".", ("--package", "../elsewhere"), "PACKAGE is a folder inside TARGET"),
        (str(PROJECT / "docs"), (), "inside this project"),
    ],
)
def test_a_wrong_call_says_what_to_do(tmp_path: Path, target: str, options: tuple[str, ...], says: str) -> None:
    result = adopt(tmp_path / target, *options)
    assert result.returncode == 1
    assert says in result.stderr
    assert "Traceback" not in result.stderr
