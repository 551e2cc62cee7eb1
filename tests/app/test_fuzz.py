"""The API against its own OpenAPI document: no server error, and every answer as documented.

Some hundred requests with a fixed seed in `make test`; `make fuzz` sets FUZZ_SECONDS and leaves the seed to chance.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests import servers
from tests.app.conftest import BadInput, metric_value, sign_up
from tests.running import Running
from tests.servers import Postgres

SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
LIMITS = (
    ["--max-time", str(SECONDS), "--max-examples", "1000"]
    if SECONDS
    else ["--max-examples", "10", "--seed", "20261123"]  # whatever else the machine does
)


@pytest.fixture(scope="module")
def service(postgres: Postgres) -> Iterator[Running]:
    """With all its routes, and a model that answers at once."""
    token = "for-the-fuzzer"
    faults = {"FAULTS_ENABLED": "true", "FAULTS_TOKEN": token, "APP_SIGN_UPS_PER_MINUTE": "0"}
    with servers.app({**postgres.environment(postgres.create_database()), **faults}) as running:
        answer = httpx2.post(
            f"{running.url}/faults/llm-slow",
            json={"seconds": 1800, "first_token_seconds": 0, "tokens_per_second": 10_000},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert answer.status_code == 200
        yield running


def test_the_api_keeps_to_its_document_whatever_it_gets(
    service: Running, client: httpx2.Client, tmp_path: Path, bad_input: BadInput
) -> None:
    with sign_up(client) as user:
        api_key = user.headers["Authorization"].removeprefix("Bearer ")
    program = Path(sys.executable).with_name("schemathesis")
    config = Path(__file__).with_name("schemathesis.toml")
    fuzzing = subprocess.run(
        [str(program), "--config-file", str(config), "run", f"{service.url}/openapi.json", "--no-color", *LIMITS],
        cwd=tmp_path,
        env={**os.environ, "API_KEY": api_key},
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
        check=False,
    )
    tried = re.search(r"(\d+) generated", fuzzing.stdout)
    assert tried, fuzzing.stdout + fuzzing.stderr
    assert fuzzing.returncode == 0, fuzzing.stdout
    bad_input.tried("made up from the OpenAPI document", Counter({"as documented": int(tried[1])}))
    assert int(tried[1]) > 100
    assert metric_value(client, 'http_requests_total{status_code="500"}') == 0
    assert "Traceback" not in service.log
