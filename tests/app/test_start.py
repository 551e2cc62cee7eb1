"""Starting and stopping: settings, waiting for the database, workers, graceful shutdown."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psycopg
import pytest

from app.settings import Settings, SettingsError, load_settings
from tests import servers
from tests.app import conftest
from tests.app.command import run
from tests.app.conftest import sign_up, workers
from tests.running import Running, suspended, wait_until
from tests.servers import Postgres


def checkable(folder: Path) -> dict[str, str]:
    """Settings by which the service needs everything that it can need."""
    return {
        "DATABASE_PASSWORD": "none",
        "ACTIVE_USERS_KEY": "sixteen bytes at least",
        "FAULTS_ENABLED": "true",
        "FAULTS_TOKEN": "token",
        "FAULTS_DIR": str(folder / "faults"),
    }


def test_check_connects_to_nothing_and_does_not_count_as_a_worker(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        places = {
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": port,
            "ACTIVE_USERS_STORE": f"redis://127.0.0.1:{port}",
        }
        checked = run({**checkable(tmp_path), **places, "PROMETHEUS_MULTIPROC_DIR": str(shared)}, "check")
        assert checked.returncode == 0, checked.stderr
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert not shared.exists()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("ACTIVE_USERS_STORE", "redis://host:abc", "ACTIVE_USERS_STORE: Port could not be cast to integer value"),
        ("FAULTS_DIR", "/dev/null", "FAULTS_DIR: cannot use /dev/null: File exists"),
        ("FAULTS_DISK_DIR", "/nonexistent", "FAULTS_DISK_DIR: /nonexistent is not a folder that"),
    ],
)
def test_check_refuses_what_every_worker_would(tmp_path: Path, setting: str, value: str, says: str) -> None:
    checked = run({**checkable(tmp_path), setting: value}, "check")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert checked.stderr.splitlines()[-1].startswith(f"Cannot start: {says}")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"APP_PORT": "eighty"}, "APP_PORT: Input should be a valid integer"),
        ({"APP_WORKERS": "0", "LOG_LEVEL": "loud"}, "APP_WORKERS: Input should be greater than or equal to 1\nLOG_LEV"),
        ({"LLM_PROVIDER": "oracle"}, "LLM_PROVIDER: Input should be 'auto', 'simulated', 'openai' or 'anthropic'"),
        ({"DATABASE_PASSWORD_FILE": "/nowhere"}, "DATABASE_PASSWORD_FILE: cannot read /nowhere: No such file or dir"),
        ({"DATABASE_PASSWORD_FILE": os.devnull}, "DATABASE_PASSWORD_FILE: /dev/null is empty"),
        ({"FAULTS_ENABLED": "true"}, "FAULTS_ENABLED=true needs FAULTS_TOKEN_FILE"),
        ({"ACTIVE_USERS_STORE": "redis://127.0.0.1"}, "ACTIVE_USERS_STORE needs ACTIVE_USERS_KEY_FILE"),
        ({"OPENAI_API_KEY": "s3cret", "APP_WORKERS": "s3cret"}, "APP_WORKERS: Input should be a valid integer"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as failure:
        load_settings()
    assert str(failure.value).startswith(message)
    assert "s3cret" not in str(failure.value)


def test_a_wrong_setting_is_reported_without_a_traceback() -> None:
    result = run({"APP_PORT": "eighty"})
    assert result.returncode == 1
    assert result.stderr.startswith("Cannot start: APP_PORT: Input should be a valid integer")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_setting_that_only_the_workers_find_wrong_ends_them_all(postgres: Postgres, workers: str) -> None:
    environment = postgres.environment(postgres.create_database())
    result = run({**environment, "LLM_PROVIDER": "openai", "APP_PORT": "0", "APP_WORKERS": workers})
    assert "Cannot start: LLM_PROVIDER=openai needs OPENAI_API_KEY_FILE" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode != 0


def test_a_worker_that_ends_while_it_is_waited_for_is_noticed(postgres: Postgres) -> None:
    """Else a wrong setting would show after a minute; here the supervisor would wait an hour for an answer."""
    impatient = "import app.server\napp.server.WORKER_TIMEOUT = 3600\nfrom app.__main__ import main\nmain()"
    settings = {"LLM_PROVIDER": "openai", "APP_PORT": "0", "APP_WORKERS": "2"}
    result = run({**postgres.environment(), **settings}, program=("-c", impatient))
    assert "failed to start, stopping the parent process" in result.stderr


def test_help_names_every_setting() -> None:
    result = run({}, "--help")
    assert result.returncode == 0
    assert [name for name in Settings.model_fields if f"  {name.upper()}" not in result.stdout] == []


def test_a_port_that_is_taken_is_named(postgres: Postgres) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run({**postgres.environment(postgres.create_database()), "APP_PORT": port})
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use. Change APP_HOST or APP_PORT" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("change", [{"DATABASE_PORT": "1"}, {"DATABASE_USER": "nobody"}, {"DATABASE_NAME": "nothing"}])
def test_a_database_that_rejects_the_login_is_waited_for_and_named(postgres: Postgres, change: dict[str, str]) -> None:
    result = run({**postgres.environment(), **change, "DATABASE_WAIT": "2"})
    assert result.returncode == 1
    assert "Waiting for PostgreSQL at 127.0.0.1:" in result.stderr
    assert "Check DATABASE_HOST, DATABASE_PORT" in result.stderr
    assert postgres.password not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_comes_late_hangs_goes_and_comes_back() -> None:
    with servers.postgres() as postgres, ExitStack() as stack:
        environment = {**postgres.environment(), "DATABASE_WAIT": "60", "APP_WORKERS": "2"}
        postgres.running.stop(signal.SIGINT)

        database: list[Running] = []

        def start_database() -> None:
            database.append(Running(postgres.running.server, postgres.running.log_file))
            stack.callback(database[-1].stop, signal.SIGINT)

        def start_database_when_missed() -> None:
            with socket.create_server((postgres.host, postgres.port)) as nobody:
                nobody.accept()[0].close()
            start_database()
            finished.wait()  # a server ends with the thread that started it

        finished = threading.Event()
        late = threading.Thread(target=start_database_when_missed)
        late.start()
        stack.callback(late.join)
        stack.callback(finished.set)
        with servers.app(environment) as service, httpx2.Client(base_url=service.url, timeout=60) as client:
            assert "Waiting for PostgreSQL" in service.log
            sign_up(client).close()

            with suspended(database[0]):
                hung = client.get("/readyz")
                assert (hung.status_code, hung.json()) == (503, {"detail": "The database is not available"})
                assert client.get("/healthz").status_code == 200
            wait_until(lambda: client.get("/readyz").status_code == 200)

            database[0].stop(signal.SIGINT)
            assert client.get("/readyz").status_code == 503
            answer = client.post("/users", json={"name": "Nobody"})
            assert (answer.status_code, answer.json()) == (503, {"detail": "The database is not available"})
            assert answer.headers["Retry-After"] == "1"

            start_database()
            wait_until(lambda: client.get("/readyz").status_code == 200)
            # Each worker's pool holds connections of the server that died.
            for _ in range(10):
                sign_up(client).close()
            assert "Traceback" not in service.log


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_requests_finish_and_ends_cleanly(postgres: Postgres, workers: int) -> None:
    environment = postgres.environment(postgres.create_database())
    with (
        servers.app({**environment, "APP_WORKERS": str(workers)}) as service,
        httpx2.Client(base_url=service.url, timeout=60) as client,
        sign_up(client) as user,
    ):
        wait_until(lambda: service.log.count("Application startup complete") == workers)
        with user.stream("POST", "/chat", json={"message": "The last one", "stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            service.process.send_signal(signal.SIGTERM)
            assert "event: done" in list(lines)
        service.process.wait(300)
        assert _refuses(service.port)
        assert "Traceback" not in service.log
        assert service.log.count("Application shutdown complete") == workers


@pytest.mark.parametrize("workers", [1, 2])
def test_behind_a_proxy_a_service_that_ends_is_unready_first(postgres: Postgres, workers: int) -> None:
    """It serves on, until the proxy has noticed; a second SIGTERM ends it at once."""
    environment = {**postgres.environment(postgres.create_database()), "APP_DRAIN_SECONDS": "600"}
    with servers.app({**environment, "APP_WORKERS": str(workers)}) as service:
        wait_until(lambda: service.log.count("Application startup complete") == workers)
        service.process.send_signal(signal.SIGTERM)

        def unready() -> bool:
            answers = [httpx2.get(f"{service.url}/readyz", timeout=60) for _ in range(10)]
            return {answer.status_code for answer in answers} == {503}

        wait_until(unready)
        assert httpx2.get(f"{service.url}/readyz", timeout=60).json() == {"detail": "The service is shutting down"}
        with httpx2.Client(base_url=service.url, timeout=60) as client:
            sign_up(client).close()
        for process in conftest.workers(service) if workers > 1 else [service.process]:
            process.send_signal(signal.SIGTERM)
        service.process.wait(300)
        assert service.log.count("Application shutdown complete") == workers
        assert "Traceback" not in service.log


def test_sigterm_does_not_wait_for_ever(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    token = {"FAULTS_ENABLED": "true", "FAULTS_TOKEN": "for-this-test"}
    with (
        servers.app({**environment, **token, "APP_SHUTDOWN_TIMEOUT": "1"}) as service,
        httpx2.Client(base_url=service.url, timeout=60) as client,
        sign_up(client) as user,
    ):
        switch = {"Authorization": "Bearer for-this-test"}
        client.post("/faults/llm-slow", json={"first_token_seconds": 0, "tokens_per_second": 1}, headers=switch)
        with user.stream("POST", "/chat", json={"message": "Endless", "stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            service.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx2.RemoteProtocolError):
                list(lines)
        service.process.wait(300)
        with psycopg.connect(postgres.dsn(environment["DATABASE_NAME"])) as connection:
            row = connection.execute("SELECT complete FROM messages WHERE role = 'assistant'").fetchone()
        assert row == (False,)  # what was written until then is stored


@pytest.mark.attack("a worker killed")
def test_a_worker_that_dies_is_replaced(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    with (
        servers.app({**environment, "APP_WORKERS": "2"}) as service,
        httpx2.Client(base_url=service.url, timeout=60) as client,
    ):
        wait_until(lambda: service.log.count("Application startup complete") == 2)
        before = workers(service)
        assert len(before) == 2
        before[0].kill()
        wait_until(lambda: len(now := workers(service)) == 2 and before[0] not in now)
        wait_until(lambda: service.log.count("Application startup complete") == 3)
        assert client.get("/readyz").status_code == 200


@pytest.mark.attack("a worker that does nothing for 7 s")
def test_a_worker_that_does_nothing_for_a_while_is_kept(postgres: Postgres) -> None:
    """As one that still imports on a busy machine; uvicorn's default would kill it after 5 s."""
    environment = postgres.environment(postgres.create_database())
    with servers.app({**environment, "APP_WORKERS": "2"}) as service:
        wait_until(lambda: service.log.count("Application startup complete") == 2)
        before = workers(service)
        before[0].suspend()
        time.sleep(7)
        before[0].resume()
        wait_until(lambda: httpx2.get(f"{service.url}/readyz", timeout=60).status_code == 200)
        assert workers(service) == before


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False
