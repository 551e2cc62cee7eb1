"""The service as a user meets it: `python -m app` on a free port, with a database of its own."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.db.migrate import migrate
from app.main import create_app
from app.settings import Settings
from tests import servers
from tests.running import Running
from tests.servers import Postgres


@dataclass
class BadInput:
    """What the tests have thrown at the service, for the table at the end of the run."""

    answers: dict[str, Counter[int | str]] = field(default_factory=dict)
    """Kind of input -> how often it was answered how: by a status code, or "closed" for no answer."""
    memory: float = 0.0
    """The most by which the service has grown during one kind, in MiB."""

    def tried(self, kind: str, answers: Counter[int | str]) -> None:
        self.answers[kind] = answers


@pytest.fixture(scope="session")
def bad_input(summarize: Callable[[str, str], None]) -> Iterator[BadInput]:
    title = "bad input tried on the service"
    bad = BadInput()
    yield bad
    for kind, answers in bad.answers.items():
        counts = ", ".join(f"{answer}: {count}" for answer, count in sorted(answers.items(), key=str))
        summarize(title, f"{kind:<40}{answers.total():>7}   {counts}")
    if bad.memory:
        summarize(title, f"memory grew by {bad.memory:.0f} MiB at most")


@pytest.fixture(scope="session")
def service(postgres: Postgres) -> Iterator[Running]:
    unlimited = {"APP_SIGN_UPS_PER_MINUTE": "0"}  # each test signs up
    with servers.app({**postgres.environment(postgres.create_database()), **unlimited}) as running:
        yield running


@pytest.fixture
def client(service: Running) -> Iterator[httpx2.Client]:
    """Nobody in particular."""
    with httpx2.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture
def user(client: httpx2.Client) -> Iterator[httpx2.Client]:
    """A new user."""
    with sign_up(client) as user:
        yield user


def sign_up(client: httpx2.Client, name: str = "Ada") -> httpx2.Client:
    """A client that sends the API key of a new user."""
    answer = client.post("/users", json={"name": name})
    assert answer.status_code == 201, answer.text
    authorization = {"Authorization": f"Bearer {answer.json()['api_key']}"}
    return httpx2.Client(base_url=client.base_url, timeout=60, headers=authorization)


@pytest.fixture
def settings(postgres: Postgres, tmp_path: Path) -> Settings:
    """Settings of an application inside the test, with an empty database."""
    environment = postgres.environment(postgres.create_database())
    return Settings(
        database_host=postgres.host,
        database_port=postgres.port,
        database_name=environment["DATABASE_NAME"],
        database_user=postgres.user,
        database_password=SecretStr(postgres.password),
        llm_provider="simulated",
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application inside the test, where its parts can be reached."""
    migrate(settings)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def inside(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A signed-up user of `app`."""
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app", timeout=60) as client:
        answer = await client.post("/users", json={"name": "Ada"})
        client.headers["Authorization"] = f"Bearer {answer.json()['api_key']}"
        yield client


@pytest.fixture
def metric(client: httpx2.Client) -> Callable[[str], float]:
    """metric('name{label="value"}') -> the sum over all series that begin so, as /metrics shows it now."""

    def read(series: str) -> float:
        return metric_value(client, series)

    return read


def metric_value(client: httpx2.Client, series: str) -> float:
    name, _, labels = series.partition("{")
    wanted = [label for label in labels.rstrip("}").split(",") if label]
    total = 0.0
    for line in client.get("/metrics").text.splitlines():
        head, _, value = line.partition(" # ")[0].rpartition(" ")
        if head.partition("{")[0] == name and all(label in head for label in wanted):
            total += float(value)
    return total


def workers(service: Running) -> list[psutil.Process]:
    """The living worker processes of a service that has several."""
    found = []
    for child in psutil.Process(service.process.pid).children():
        with contextlib.suppress(psutil.Error):  # one that has just died
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found
