"""`make incident` and load tests beside each other: both have the one metrics port of load tests."""

from __future__ import annotations

import socket

import psutil
import pytest

from ops.drills import run
from ops.drills.target import DrillError, Target
from tests.running import free_port


def target(port: int, app: str) -> Target:
    return Target(app, "", "", servers=None, faults_token=None, load_metrics_port=port)  # type: ignore[arg-type]


@pytest.mark.attack("make incident beside a load test")
def test_the_traffic_of_a_load_test_that_runs_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as load_test:
        before = psutil.Process().children()
        with run._traffic(target(load_test.getsockname()[1], "http://127.0.0.1:9")):
            assert psutil.Process().children() == before
    assert capsys.readouterr().out == "A load test runs already; its traffic is used.\n"


def test_a_load_test_that_does_not_start_is_reported_immediately() -> None:
    app = f"http://127.0.0.1:{free_port()}"
    with (
        pytest.raises(DrillError, match=f"The load test did not start: loadtest: no healthy service at {app}"),
        run._traffic(target(free_port(), app)),
    ):
        pytest.fail("there is no traffic")
