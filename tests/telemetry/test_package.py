"""The telemetry as a package: the wheel holds the very files of app/telemetry, and each extra runs a service alone."""

import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.running import wait_until
from tests.telemetry.environments import environment, run
from tests.telemetry.serving import ROOT

# A service for each extra: what it prints first is its address, and it serves /metrics.
PLAIN = """
from wsgiref.simple_server import make_server
from sightline_telemetry import exposition
{work}
def answer(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [exposition.render()]
server = make_server("127.0.0.1", 0, answer)
print(f"running on http://127.0.0.1:{{server.server_port}}", flush=True)
server.serve_forever()
"""
SERVICES = {
    "fastapi": """
import socket, uvicorn
from fastapi import FastAPI
from sightline_telemetry.http import PrometheusMiddleware, metrics_endpoint
app = FastAPI()
app.add_middleware(PrometheusMiddleware)
app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)
listener = socket.create_server(("127.0.0.1", 0))
print(f"running on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])
""",
    "sqlalchemy": PLAIN.format(
        work="""
from sqlalchemy import create_engine, text
from sightline_telemetry.database import instrument_engine
engine = create_engine("sqlite://")
instrument_engine(engine)
with engine.connect() as connection:
    connection.execute(text("SELECT 1"))
"""
    ),
    "llm": PLAIN.format(
        work="""
from sightline_telemetry import llm
llm.configure(models={"openai": ["gpt-5-mini"]})
with llm.track_call("openai", "gpt-5-mini", prompt="hello"):
    pass
"""
    ),
}
# A store that is not there: nothing waits for it.
SERVICES["users-store"] = PLAIN.format(
    work="""
from sightline_telemetry.users import active_users
from sightline_telemetry.users_store import UsersStore
UsersStore("redis://127.0.0.1:1", b"0123456789abcdef").start()
active_users.touch("ada")
"""
)
COUNTED = {
    "fastapi": r'http_requests_total\{method="GET",endpoint="/metrics",status_code="200"\} [1-9]',
    "sqlalchemy": r'db_query_duration_seconds_count\{pool="main",operation="SELECT",query_name="other"\} 1',
    "llm": r'llm_requests_total\{provider="openai",model="gpt-5-mini",operation="chat",outcome="\w+"\} 1',
    "users-store": r'active_users\{window="1m"\} 1(?s:.*)active_users_store_up 0',
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_files_that_are_copied(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "app/telemetry").split()
    assert packed == {
        path.replace("app/telemetry", "sightline_telemetry"): (ROOT / path).read_bytes()
        for path in tracked
        if (ROOT / path).exists()
    }
    assert "sightline_telemetry/py.typed" in packed
    for name, content in packed.items():
        if name.endswith(".py"):
            assert content.startswith(b"# SPDX-License-Identifier: Apache-2.0\n"), name


@pytest.mark.parametrize("extra", SERVICES)
def test_each_extra_runs_a_service(wheel: Path, tmp_path: Path, extra: str) -> None:
    server = ("uvicorn",) if extra == "fastapi" else ()
    with environment(tmp_path / "venv", f"{wheel}[{extra}]", *server) as python:
        (tmp_path / "service.py").write_text(SERVICES[extra])
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [python, "service.py"], cwd=tmp_path, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )
        try:

            def address() -> str:
                said = (tmp_path / "log").read_text()
                assert process.poll() is None, said
                found = re.search(r"running on (\S+)", said)
                return found[1] if found else ""

            url = wait_until(address)
            assert isinstance(url, str)

            def counted() -> bool:
                text = urllib.request.urlopen(f"{url}/metrics", timeout=60).read().decode()
                return re.search(COUNTED[extra], text) is not None

            wait_until(counted)
        finally:
            process.kill()
            process.wait()
