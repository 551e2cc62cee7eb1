"""Several real workers on one database: their numbers add up to what PostgreSQL says, also after one was killed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.running import wait_until
from tests.telemetry.database.service import POOL_SIZE
from tests.telemetry.serving import UVICORN, serve, value

WORKERS = 4


def test_four_workers_agree_with_the_server(dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    environment = {
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "TEST_DATABASE_URL": dsn.replace("postgresql:", "postgresql+psycopg:", 1),
    }
    command = (*UVICORN, "--workers", str(WORKERS), "tests.telemetry.database.service:app")
    with (
        serve(*command, environment=environment) as served,
        psycopg.connect(dsn, autocommit=True) as server,
        ThreadPoolExecutor(8) as threads,
    ):
        workers: set[int] = set()
        added = lost = 0

        def add(account: int) -> int:
            status, pid = served.send("POST", f"/add/{account}?hold=0.01")
            assert status == 200
            return int(pid)

        def add_ten() -> None:
            nonlocal added
            workers.update(threads.map(add, range(1, 11)))
            added += 10

        def all_workers_added() -> bool:
            add_ten()
            return len(workers) == WORKERS

        def row(query: str) -> float:
            found = server.execute(query.encode()).fetchone()
            return float(found[0]) if found else 0.0

        def numbers_agree() -> bool:
            """What the workers say together is what the server has."""
            found = served.samples()
            assert {
                "commits": value(found, "db_transactions_total", outcome="commit"),
                "other ends": value(found, "db_transactions_total") - added,
                "queries": value(found, "db_query_duration_seconds_count", operation="UPDATE", query_name="add"),
                "timed commits": value(found, "db_commit_duration_seconds_count"),
                "connections": value(found, "db_pool_connections", state="idle"),
                "in use": value(found, "db_pool_connections", state="used"),
                "limit": value(found, "db_pool_connections_max"),
                "pending": value(found, "db_pool_pending_checkouts"),
            } == {
                "commits": row("SELECT sum(balance) FROM account"),
                "other ends": 0,
                "queries": added + lost,
                "timed commits": added,
                "connections": row("SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"),
                "in use": 0,
                "limit": WORKERS * POOL_SIZE,
                "pending": 0,
            }
            return True

        wait_until(all_workers_added, interval=0)
        wait_until(numbers_agree)

        # Killed in the middle of a transaction: its statement was counted, its end never is; everything else stays.
        held = served.connect()
        held.sendall(b"POST /add/1?hold=60 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        holder = "SELECT application_name FROM pg_stat_activity WHERE state = 'idle in transaction'"
        pid = int(wait_until(lambda: row(holder)))
        wait_until(lambda: value(served.samples(), "db_pool_connections", state="used") == 1)
        workers.remove(pid)
        os.kill(pid, signal.SIGKILL)
        lost = 1
        held.close()
        wait_until(all_workers_added, interval=0)  # its successor too
        wait_until(numbers_agree)
