"""The database is gone, hangs, or has no connection left under answers that are under way: each reaches its client."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests import servers
from tests.app.chats import events, hanging
from tests.app.conftest import sign_up
from tests.servers import Postgres
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import openai_stream

STREAMS = 10


@contextmanager
def stopped(postgres: Postgres, end: signal.Signals) -> Iterator[None]:
    postgres.running.stop(end)
    yield


@contextmanager
def locked(postgres: Postgres) -> Iterator[None]:
    """Each insertion waits, and so holds a connection of the pool until its time is over."""
    with psycopg.connect(postgres.superuser_dsn.rpartition("/")[0] + "/sightline") as connection:
        connection.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        yield


OUTAGES: dict[str, Callable[[Postgres], object]] = {
    "fast shutdown": partial(stopped, end=signal.SIGINT),
    "immediate shutdown": partial(stopped, end=signal.SIGQUIT),
    "killed": partial(stopped, end=signal.SIGKILL),
    "hangs": partial(hanging, database=""),
    "no connection left": locked,
}


@pytest.mark.attack("the database stops, hangs or is locked under streams", tried=STREAMS)
@pytest.mark.parametrize("outage", OUTAGES)
def test_streams_reach_their_clients_without_a_database(outage: str, tmp_path: Path) -> None:
    """The model goes on writing when the database has gone."""
    small = {"DATABASE_POOL_SIZE": "2", "DATABASE_MAX_OVERFLOW": "0", "DATABASE_POOL_TIMEOUT": "2"}
    model = {"LLM_PROVIDER": "openai", "OPENAI_API_KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "key").write_text("none")
    begun, gone = threading.Semaphore(0), threading.Event()
    with servers.postgres() as postgres, fake_provider.running() as provider:
        provider.replies = [openai_stream(stall_after=3, resume=gone)]
        environment = {**postgres.environment(), **small, **model, "OPENAI_BASE_URL": provider.openai_url}
        with servers.app(environment) as service, httpx2.Client(base_url=service.url, timeout=60) as client:
            with sign_up(client) as user, ThreadPoolExecutor(STREAMS) as streams:
                found = []
                for _ in range(STREAMS):  # one after the other, as there are two connections only
                    found.append(streams.submit(_read, user, begun))
                    assert begun.acquire(timeout=60)
                with OUTAGES[outage](postgres):  # type: ignore[attr-defined]
                    gone.set()
                    ends = [one.result() for one in found]
            for deltas, (last, done) in ends:
                assert (last, done["stored"]) == ("done", False), service.log
                assert "".join(data["text"] for name, data in deltas if name == "delta") == "Hello to you"
            assert service.log.count("was not stored") == STREAMS
            assert "Traceback" not in service.log
            assert client.get("/healthz").status_code == 200


def _read(user: httpx2.Client, begun: threading.Semaphore) -> tuple[list, tuple]:  # type: ignore[type-arg]
    """One stream; the database goes when all have begun."""
    with user.stream("POST", "/chat", json={"message": "A long story " * 5, "stream": True}) as answer:
        lines = answer.iter_lines()
        first = [next(lines) for _ in range(3)]
        begun.release()
        *deltas, last = events([*first, *lines])
    return deltas, last
