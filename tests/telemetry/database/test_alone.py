"""The package where nothing is but what it needs: SQLAlchemy without greenlet and drivers, or a driver's pool alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.telemetry.environments import environment
from tests.telemetry.serving import ROOT

SERVICE = """
import importlib.util, json, sys
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, text
from own.database import instrument_engine

assert importlib.util.find_spec("greenlet") is None
engine = create_engine("sqlite://")
instrument_engine(engine, query_names=("one",))
try:
    instrument_engine(object())
except TypeError as error:
    refusal = str(error)
with engine.begin() as connection:
    connection.execute(text("SELECT 1"), execution_options={"query_name": "one"})
labels = {"pool": "main"}
print(json.dumps({
    "queries": REGISTRY.get_sample_value(
        "db_query_duration_seconds_count", {**labels, "operation": "SELECT", "query_name": "one"}
    ),
    "commits": REGISTRY.get_sample_value("db_transactions_total", {**labels, "outcome": "commit"}),
    "idle": REGISTRY.get_sample_value("db_pool_connections", {**labels, "state": "idle"}),
    "refusal": refusal,
    "asyncio": [name for name in sys.modules if name.startswith("sqlalchemy.ext.asyncio")],
}))
"""


@pytest.mark.parametrize("version", ["2.1", "2.0"])
def test_a_synchronous_service_needs_neither_greenlet_nor_the_rest_of_the_telemetry(
    tmp_path: Path, version: str
) -> None:
    shutil.copytree(ROOT / "app" / "telemetry" / "database", tmp_path / "own" / "database")
    (tmp_path / "service.py").write_text(SERVICE)
    with environment(tmp_path / "venv", "prometheus-client", "sqlalchemy") as python:
        path = {"PYTHONPATH": str(Path(sys.prefix, "sqlalchemy-2.0"))} if version == "2.0" else {}
        done = subprocess.run(
            [python, "service.py"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **path},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "queries": 1,
        "commits": 1,
        "idle": 1,
        "refusal": "expected SQLAlchemy's Engine or AsyncEngine, not a object",
        "asyncio": [],
    }


POOLS = {
    "psycopg-pool": """
from psycopg_pool import ConnectionPool
pool = instrument_pool(ConnectionPool(DSN, min_size=1, open=True), query_names=("one",))
with pool, query_name("one"), pool.connection() as connection:
    connection.execute("SELECT 1")
""",
    "asyncpg": """
import asyncio, asyncpg
async def main():
    pool = instrument_pool(await asyncpg.create_pool(DSN, min_size=1), query_names=("one",))
    with query_name("one"):
        await pool.fetchval("SELECT 1")
    await pool.close()
asyncio.run(main())
""",
}
SERVICE_WITHOUT_SQLALCHEMY = """
import importlib.util, sys
from prometheus_client import REGISTRY
from own.database.driver_pools import instrument_pool, query_name
import own.database

assert importlib.util.find_spec("sqlalchemy") is None
DSN = sys.argv[1]
{pool}
labels = {{"pool": "main", "operation": "SELECT", "query_name": "one"}}
print(REGISTRY.get_sample_value("db_query_duration_seconds_count", labels))
try:
    own.database.instrument_engine
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize("driver", POOLS)
def test_a_pool_of_a_driver_needs_no_sqlalchemy(tmp_path: Path, dsn: str, driver: str) -> None:
    shutil.copytree(ROOT / "app" / "telemetry" / "database", tmp_path / "own" / "database")
    (tmp_path / "service.py").write_text(SERVICE_WITHOUT_SQLALCHEMY.format(pool=POOLS[driver]))
    packages = ("prometheus-client", driver, *(("psycopg", "psycopg-binary") if driver == "psycopg-pool" else ()))
    with environment(tmp_path / "venv", *packages) as python:
        done = subprocess.run(
            [python, "service.py", dsn],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1.0", "No module named 'sqlalchemy'"]
