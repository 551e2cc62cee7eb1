"""Fixtures for all tests: real servers of tests/servers.py, whose context managers serve fixtures of wider scope."""

from __future__ import annotations

import functools
import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpcore2
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests import copies, servers
from tests.plan import seconds, unit
from tests.running import Running, temporary_folder
from tests.servers import Alertmanager, Postgres, Prometheus

Tables = dict[str, list[str]]
TABLES = pytest.StashKey[Tables]()

# How long an example takes depends on what else the machine does. What CI accepts does not depend on luck.
hypothesis.settings.register_profile("sightline", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("sightline")


# Each client reads the machine's certificates, for 30 ms of CPU time; the tests make hundreds, to 127.0.0.1.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers; else the process that started them, or the only one."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not is_worker(config):
        os.environ[servers.SHARED] = str(temporary_folder("sightline-tests-"))
        Path(os.environ[servers.SHARED]).chmod(0o711)  # where root runs this, PostgreSQL runs as another user


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        shutil.rmtree(os.environ.pop(servers.SHARED), ignore_errors=True)


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out the tests in the units and the order of tests/plan.py."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def _reschedule(self, node: Any) -> None:
        """A worker gets its next unit with its last test, as it needs to know what comes next, and not one earlier."""
        if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestFirst:
    return LongestFirst(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Modules and tests stay until the end: the garbage collector need not look at them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_worker(config):
        items.sort(key=lambda item: -seconds(item.nodeid))


@pytest.fixture(scope="session")
def summarize(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """summarize(title, line): a line under this title at the end of the run, also where everything passes."""
    tables = request.config.stash.setdefault(TABLES, {})

    def add(title: str, line: str) -> None:
        tables.setdefault(title, []).append(line)

    return add


def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config):
        session.config.workeroutput["tables"] = session.config.stash.get(TABLES, {})  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    of_all = node.config.stash.setdefault(TABLES, {})
    for title, lines in getattr(node, "workeroutput", {}).get("tables", {}).items():
        of_all.setdefault(title, []).extend(lines)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.get_verbosity() < 0:
        return
    for title, lines in sorted(config.stash.get(TABLES, {}).items()):
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
    if attacks := _attacks(terminalreporter):
        terminalreporter.section("attacks (docs/security.md)")
        for line in attacks:
            terminalreporter.line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test with @pytest.mark.attack(what, tried=n) tries so often what the table of docs/security.md calls `what`."""
    item.user_properties += [
        ("attack", (*mark.args, mark.kwargs.get("tried", 1))) for mark in item.iter_markers("attack")
    ]


def _attacks(terminalreporter: pytest.TerminalReporter) -> list[str]:
    """The lines of the table: what was tried how often, and in how many of these tries the test failed."""
    tried: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            attacks = [value for name, value in report.user_properties if name == "attack" and report.when == "call"]
            for what, times in attacks:
                tried[what] += times
                lost[what] += times if outcome == "failed" else 0
    return [f"{what:<64}tried {times:>6}   lost {lost[what]}" for what, times in sorted(tried.items())]


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
def project_copy() -> Iterator[Path]:
    """A copy of the project, to be changed."""
    with copies.project_copy() as folder:
        yield folder
