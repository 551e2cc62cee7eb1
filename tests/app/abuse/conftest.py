"""Hostile requests cause no server error, no new series and no unbounded memory, and others are still served.

`make fuzz` sets FUZZ_SECONDS and so tries ten times as much. A table at the end of the run counts what was tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from tests import servers
from tests.app.abuse.raw import Tried, endpoints, in_progress
from tests.app.conftest import BadInput, sign_up
from tests.running import Running, wait_until
from tests.servers import Postgres

REQUEST_TIMEOUT = 2  # seconds, of the service under test
STANDARD_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "OTHER"}


@pytest.fixture(scope="module")
def service(postgres: Postgres) -> Iterator[Running]:
    environment = postgres.environment(postgres.create_database())
    limits = {
        "APP_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT),
        "APP_MAX_CONNECTIONS": "100",
        "APP_SIGN_UPS_PER_MINUTE": "0",
    }
    with servers.app({**environment, **limits}) as running:
        yield running


@pytest.fixture(autouse=True)
def _unharmed(service: Running, client: httpx2.Client, bad_input: BadInput) -> Iterator[None]:
    """After each abuse: the same series, no server error, no traceback, little memory, and others are still served."""
    main = psutil.Process(service.process.pid)
    memory = main.memory_info().rss
    known = endpoints(client)
    yield
    assert endpoints(client) <= known | set(client.get("/openapi.json").json()["paths"]) | {
        "unmatched",
        "/openapi.json",
        "/metrics",
    }
    with sign_up(client) as user:
        assert user.post("/items", json={"title": "Still here"}).status_code == 201
    text = client.get("/metrics").text
    assert set(re.findall(r'^http_requests_total{.*?method="(.*?)"', text, re.MULTILINE)) <= STANDARD_METHODS
    assert not re.findall(r'^http_requests_total{.*status_code="5.*} (?!0$)', text, re.MULTILINE)
    assert "Traceback" not in service.log, service.log
    grown = (main.memory_info().rss - memory) / 2**20
    bad_input.memory = max(bad_input.memory, grown)
    assert grown < 100
    # Itself is the only one being served.
    wait_until(lambda: in_progress(client) == {"/metrics": 1})


@pytest.fixture
def tried(bad_input: BadInput) -> Tried:
    return bad_input.tried
