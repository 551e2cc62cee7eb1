"""Fixtures for all tests: real servers, see tests/servers.py (its context managers serve fixtures of wider scope)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Alertmanager, Postgres, Prometheus, Running

TABLES = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """tell(title, line): a line under this title at the end of the run, also where everything passes."""
    tables = request.config.stash.setdefault(TABLES, {})

    def add(title: str, line: str) -> None:
        tables.setdefault(title, []).append(line)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, lines in config.stash.get(TABLES, {}).items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; each takes a database of its own with `postgres.create_database()`."""
    with servers.postgres() as running:
        yield running


@pytest.fixture
def start_prometheus() -> Iterator[Callable[..., Prometheus]]:
    """start_prometheus(folder, file or text, flags=()) -> Prometheus with .url, .query(), .value(), .api(), .stop()."""
    with ExitStack() as stack:

        def start(config: Path | str, flags: tuple[str, ...] = ()) -> Prometheus:
            return stack.enter_context(servers.prometheus(config, flags))

        yield start


@pytest.fixture
def start_alertmanager() -> Iterator[Callable[..., Alertmanager]]:
    """start_alertmanager(folder, file or text, flags=()) -> Alertmanager with .url, .alerts(), .stop()."""
    with ExitStack() as stack:

        def start(config: Path | str, flags: tuple[str, ...] = ()) -> Alertmanager:
            return stack.enter_context(servers.alertmanager(config, flags))

        yield start


@pytest.fixture(scope="session")
def node_exporter() -> Iterator[Running]:
    with servers.node_exporter() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_exporter(postgres: Postgres) -> Iterator[Running]:
    """The exporter of the session's PostgreSQL, by the role that the stack gives it."""
    with servers.postgres_exporter(postgres) as running:
        yield running


@pytest.fixture
def wait_until() -> Callable[..., object]:
    """wait_until(predicate, timeout=60, interval=0.1): poll until true, fail with the last value otherwise."""
    return servers.wait_until
