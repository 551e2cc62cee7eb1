"""A load test whose own code fails, or whose requests do not end, has not passed: locustfiles against the service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.launch import OPTIONS
from tests import servers
from tests.running import Running, free_port
from tests.servers import Postgres

PROJECT = Path(__file__).parents[2]
FAILING = """
from loadtest import users
from loadtest.users import SimulatedUser

{change}
from loadtest.locustfile import *
"""
CHANGES = {
    "a task": (
        """
def browse(user):
    user.call("GET", "/items?limit=20", "/items")
    {}["nothing"]

users.TASKS["browse"] = browse
""",
        r"exceptions in tasks.",
        "'nothing'",
    ),
    "the start": (
        """
def on_start(self):
    raise RuntimeError("no account for this user")

SimulatedUser.on_start = on_start
""",
        "exceptions in tasks.",
        "no account for this user",
    ),
    "no request": (
        """
users.TASKS["browse"] = lambda user: None
SimulatedUser.on_start = lambda self: None
""",
        "Verdict: FAILED, no request completed.",
        "",
    ),
    "open requests": (
        """
def browse(user):
    user.call("GET", "/items?limit=20", "/items")
    with user.tracked("/slow"):
        import gevent
        gevent.sleep(600)

users.TASKS["browse"] = browse
""",
        "Verdict: FAILED, 3 requests were still open at the end.",
        "",
    ),
}


@pytest.fixture(scope="module")
def service(postgres: Postgres) -> Iterator[Running]:
    with servers.app(postgres.environment(postgres.create_database())) as running:
        yield running


@pytest.mark.parametrize(
    ("what", "workers"),
    [("a task", 1), ("a task", 2), ("the start", 1), ("no request", 1), ("open requests", 1), ("open requests", 2)],
)
@pytest.mark.attack("a load test whose users fail")
def test_what_fails_in_the_users_is_no_pass(service: Running, what: str, workers: int, tmp_path: Path) -> None:
    change, verdict, named = CHANGES[what]
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text(FAILING.format(change=change))
    options = list(OPTIONS)
    options[options.index("--stop-timeout") + 1] = "2"
    if workers > 1:
        port = str(free_port())
        options += ["--processes", str(workers), "--master-bind-port", port, "--master-port", port]
    run = subprocess.run(
        [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", service.url, "--headless", *options],
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "HOST": service.url,
            "USERS": "3",
            "DURATION": "10s" if workers == 1 else "20s",
            "THINK": "0.1-0.2",
            "WEIGHTS": "write=0,chat=0,stream=0,abandon=0",
            "LOCUST_METRICS_PORT": str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert verdict in run.stdout, run.stdout + run.stderr
    assert named in run.stdout
    assert "Traceback" not in run.stdout
    assert run.returncode == 1
