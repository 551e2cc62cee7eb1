"""Each fault goes on, does what it says in every worker, and ends: by itself, or when it is switched off."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import psycopg
import pytest
from pydantic import SecretStr

from app.faults import FAULTS, MAX_SECONDS
from app.main import create_app
from app.settings import Settings
from tests import servers
from tests.app.command import run
from tests.app.conftest import workers
from tests.running import Running, wait_until
from tests.servers import Postgres

TOKEN = "for-these-tests-only"
WORKERS = 2


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> dict[str, str]:
    return postgres.environment(postgres.create_database())


@pytest.fixture(scope="module")
def service(database: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {
        **database,
        "APP_WORKERS": str(WORKERS),
        "DATABASE_POOL_SIZE": "2",
        "DATABASE_MAX_OVERFLOW": "1",
        "DATABASE_POOL_TIMEOUT": "0.5",
        "FAULTS_ENABLED": "true",
        "FAULTS_TOKEN": TOKEN,
        "FAULTS_DISK_DIR": str(tmp_path_factory.mktemp("disk")),
    }
    with servers.app(environment) as running:
        yield running


@pytest.fixture
def switch(service: Running) -> Iterator[httpx2.Client]:
    """Whoever has the token; everything is off again afterwards."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx2.Client(base_url=service.url, headers=headers, timeout=60) as client:
        yield client
        assert client.delete("/faults").status_code == 204
        wait_until(lambda: active(client) == {})


def on(switch: httpx2.Client, name: str, **parameters: object) -> None:
    answer = switch.post(f"/faults/{name}", json=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.json()["active"] is True


def active(switch: httpx2.Client) -> dict[str, dict[str, Any]]:
    return {fault["name"]: fault for fault in switch.get("/faults").json()["faults"] if fault["active"]}


def statuses(user: httpx2.Client, method: str = "GET", path: str = "/items", times: int = 40) -> list[int]:
    """New connections, so that all workers get some."""
    headers = {**user.headers, "Connection": "close"}
    return [user.request(method, path, headers=headers).status_code for _ in range(times)]


def test_without_the_setting_there_is_nothing(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    with servers.app(environment) as service, httpx2.Client(base_url=service.url, timeout=60) as client:
        for method, path in (("GET", "/faults"), ("POST", "/faults/crash"), ("DELETE", "/faults/crash")):
            assert client.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404
        assert not any("faults" in path for path in client.get("/openapi.json").json()["paths"])


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer ", "Bearer  "])
async def test_an_empty_token_is_rejected(settings: Settings, authorization: str | None) -> None:
    app = create_app(settings.model_copy(update={"faults_enabled": True, "faults_token": SecretStr("")}))
    headers = {"Authorization": authorization} if authorization else {}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://app", headers=headers
    ) as client:
        assert (await client.get("/faults")).status_code == 401
        assert (await client.post("/faults/slow", json={})).status_code == 401


def test_without_the_token_nothing_is_switched(client: httpx2.Client, switch: httpx2.Client) -> None:
    for authorization in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"}):
        assert client.get("/faults", headers={k: v.strip() for k, v in authorization.items()}).status_code == 401
        assert client.delete("/faults/slow").status_code == 401
        assert client.post("/faults/slow", json={}, headers={k: v.strip() for k, v in authorization.items()}).is_error
    assert active(switch) == {}


def test_all_are_listed_with_what_they_do(switch: httpx2.Client) -> None:
    listed = switch.get("/faults").json()["faults"]
    assert [fault["name"] for fault in listed] == list(FAULTS)
    assert all(fault["description"] and not fault["active"] for fault in listed)


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("slow", {"seconds": MAX_SECONDS + 1}, 422),
        ("slow", {"seconds": 0}, 422),
        ("slow", {"seconds": "60"}, 422),
        ("slow", {"delay": 31}, 422),
        ("errors", {"share": 1.01}, 422),
        ("errors", {"status": 404}, 422),
        ("memory", {"megabytes": 10**6}, 422),
        ("llm-errors", {"kind": "bored"}, 422),
        ("crash", {"pid": 1}, 422),
        ("meteor", {}, 404),
    ],
)
def test_parameters_are_bounded(switch: httpx2.Client, name: str, parameters: dict[str, object], status: int) -> None:
    assert switch.post(f"/faults/{name}", json=parameters).status_code == status
    assert active(switch) == {}


def test_a_fault_ends_by_itself_and_can_be_replaced_and_cancelled(switch: httpx2.Client) -> None:
    on(switch, "slow", seconds=600, delay=30)
    on(switch, "slow", seconds=300, delay=0.01)
    state = active(switch)["slow"]
    assert state["parameters"]["delay"] == 0.01
    assert 0 < state["seconds_left"] <= 300
    on(switch, "slow", seconds=1, delay=0.01)
    wait_until(lambda: active(switch) == {})

    on(switch, "slow", seconds=600)
    on(switch, "errors", seconds=600)
    assert switch.delete("/faults/slow").status_code == 204
    wait_until(lambda: list(active(switch)) == ["errors"])
    assert switch.delete("/faults/slow").status_code == 204  # also fine when it is off
    assert switch.delete("/faults/meteor").status_code == 404


def test_requests_fail_in_every_worker(user: httpx2.Client, switch: httpx2.Client, service: Running) -> None:
    on(switch, "errors", share=1, status=503)
    wait_until(lambda: set(statuses(user)) == {503})
    assert set(statuses(user, path="/healthz")) == {200}
    switch.delete("/faults/errors")
    wait_until(lambda: set(statuses(user)) == {200})

    on(switch, "exceptions", share=0.5, path_prefix="/items")
    wait_until(lambda: set(statuses(user, times=60)) == {200, 500})
    assert set(statuses(user, path="/users/me")) == {200}
    assert "app.faults.requests.InjectedError" in service.log


def test_requests_are_slow(user: httpx2.Client, switch: httpx2.Client, metric: Callable[[str], float]) -> None:
    on(switch, "slow", delay=0.3)
    wait_until(lambda: user.get("/users/me").elapsed.total_seconds() >= 0.3)
    slow = 'http_request_duration_seconds_%s{method="GET",endpoint="/users/me"%s}'
    wait_until(lambda: metric(slow % ("count", "")) > metric(slow % ("bucket", ',le="0.25"')))


def test_queries_sleep_in_postgresql(
    user: httpx2.Client, switch: httpx2.Client, metric: Callable[[str], float]
) -> None:
    def measured() -> float:
        """The seconds of one more query."""
        before = metric('db_query_duration_seconds_sum{query_name="user_by_key"}')
        assert user.get("/users/me").elapsed.total_seconds() >= 0.3
        return metric('db_query_duration_seconds_sum{query_name="user_by_key"}') - before

    on(switch, "database-slow", delay=0.3)
    wait_until(lambda: measured() >= 0.3)


def test_the_pool_is_exhausted_and_recovers(
    user: httpx2.Client, switch: httpx2.Client, service: Running, metric: Callable[[str], float]
) -> None:
    on(switch, "pool-exhausted")
    wait_until(lambda: metric('db_pool_connections{state="used"}') == 3 * WORKERS)
    assert set(statuses(user, times=4)) == {503}
    assert user.get("/readyz").status_code == 503
    assert metric("db_pool_checkout_timeouts_total") >= 4
    switch.delete("/faults/pool-exhausted")
    wait_until(lambda: set(statuses(user, times=10)) == {200})
    wait_until(lambda: metric('db_pool_connections{state="used"}') == 0)


def test_postgresql_sees_deadlocks(
    database: dict[str, str], postgres: Postgres, switch: httpx2.Client, metric: Callable[[str], float]
) -> None:
    on(switch, "deadlocks", pause=0)
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = %s"
        wait_until(lambda: (connection.execute(query, [database["DATABASE_NAME"]]).fetchone() or (0,))[0] >= 2)
    wait_until(lambda: metric('db_query_errors_total{sqlstate_class="40"}') >= 2)


def test_a_transaction_stays_open_until_the_end(
    database: dict[str, str], postgres: Postgres, switch: httpx2.Client
) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = %s AND state = 'idle in transaction' AND backend_xid IS NOT NULL"
    )
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:

        def open_transactions() -> int:
            return int((connection.execute(query, [database["DATABASE_NAME"]]).fetchone() or (0,))[0])

        on(switch, "long-transaction")
        wait_until(lambda: open_transactions() == 1)  # one, not one for each worker
        switch.delete("/faults/long-transaction")
        wait_until(lambda: open_transactions() == 0)


def test_the_llm_fails_limits_floods_and_slows(
    user: httpx2.Client, switch: httpx2.Client, metric: Callable[[str], float]
) -> None:
    def chat() -> httpx2.Response:
        return user.post("/chat", json={"message": "Hello"}, headers={"Connection": "close"})

    on(switch, "llm-slow", first_token_seconds=0, tokens_per_second=10_000)  # this way it is even faster than usual
    on(switch, "llm-errors", share=1, kind="context_length")
    wait_until(lambda: [chat().status_code for _ in range(6)] == [400] * 6)
    on(switch, "llm-errors", share=1, kind="timeout")
    wait_until(lambda: chat().status_code == 504)
    switch.delete("/faults/llm-errors")

    on(switch, "llm-rate-limit", requests_per_minute=0)
    wait_until(lambda: [chat().status_code for _ in range(6)] == [503] * 6)
    assert metric('llm_errors_total{error_type="rate_limit"}') >= 6
    switch.delete("/faults/llm-rate-limit")

    on(switch, "llm-token-flood", output_tokens=20_000, tokens_per_second=100_000)
    wait_until(lambda: (answer := chat()).is_success and answer.json()["usage"]["output_tokens"] > 5000)
    switch.delete("/faults/llm-token-flood")

    on(switch, "llm-slow", first_token_seconds=1.5, tokens_per_second=10_000)
    wait_until(lambda: chat().elapsed.total_seconds() >= 0.75)
    switch.delete("/faults/llm-slow")
    wait_until(lambda: chat().json()["usage"]["output_tokens"] < 1000)


def test_memory_grows_in_one_worker_and_comes_back(switch: httpx2.Client, service: Running) -> None:
    def used() -> float:
        return sum(worker.memory_info().rss for worker in workers(service)) / 2**20

    before = used()
    on(switch, "memory", megabytes=200, megabytes_per_second=1000)
    wait_until(lambda: used() - before > 180)
    assert used() - before < 300
    switch.delete("/faults/memory")
    wait_until(lambda: used() - before < 60)


def test_cpus_burn_and_stop(switch: httpx2.Client, service: Running) -> None:
    def burners() -> list[psutil.Process]:
        return [child for worker in workers(service) for child in worker.children() if child.cpu_times().user > 0.1]

    on(switch, "cpu", processes=2)
    wait_until(lambda: len(burners()) == 2)
    burning = burners()
    switch.delete("/faults/cpu")
    wait_until(lambda: not any(process.is_running() for process in burning))


def test_a_disk_fills_within_bounds(switch: httpx2.Client, service: Running) -> None:
    folder = service.server.environment["FAULTS_DISK_DIR"]

    def files() -> list[int]:
        """Sizes of the files without a name in the folder that a worker holds open."""
        links = (link for worker in workers(service) for link in Path(f"/proc/{worker.pid}/fd").iterdir())
        return [link.stat().st_size for link in links if os.path.realpath(link).startswith(folder)]

    on(switch, "disk", megabytes=20, reserve_megabytes=0)
    wait_until(lambda: files() == [20 * 2**20])
    assert os.listdir(folder) == []
    on(switch, "disk", megabytes=20, reserve_megabytes=100_000)
    wait_until(lambda: files() in ([0], []))
    switch.delete("/faults/disk")
    wait_until(lambda: files() == [])


def test_the_event_loop_is_blocked(client: httpx2.Client, switch: httpx2.Client) -> None:
    on(switch, "event-loop", stall=1, pause=0.05)
    wait_until(lambda: client.get("/healthz", headers={"Connection": "close"}).elapsed.total_seconds() > 0.3)


def test_one_worker_crashes_once_and_all_crash_until_the_end(switch: httpx2.Client, service: Running) -> None:
    before = {worker.pid for worker in workers(service)}
    on(switch, "crash")
    wait_until(lambda: len({worker.pid for worker in workers(service)} - before) == 1)
    wait_until(lambda: service.log.count("Application startup complete") == WORKERS + 1)
    assert active(switch) == {}
    assert service.log.count("this worker kills itself") == 1

    before = {worker.pid for worker in workers(service)}
    on(switch, "crash", workers="all", seconds=3)
    wait_until(lambda: len({worker.pid for worker in workers(service)} - before) == WORKERS)
    wait_until(lambda: _ready(service) and active(switch) == {})


def test_another_worker_takes_over_what_a_dead_one_did(switch: httpx2.Client, service: Running) -> None:
    on(switch, "memory", megabytes=100, megabytes_per_second=1000)

    def hoarder() -> psutil.Process | None:
        return next((worker for worker in workers(service) if worker.memory_info().rss > 180 * 2**20), None)

    first = wait_until(hoarder)
    assert first
    first.kill()
    wait_until(lambda: (second := hoarder()) and second != first)


@pytest.mark.parametrize("mode", ["0755", "link", "file"])
def test_a_folder_that_others_could_write_to_is_refused(postgres: Postgres, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "faults"
    if mode == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif mode == "file":
        folder.touch(0o600)
    else:
        folder.mkdir()
        folder.chmod(int(mode, 8))
    environment = postgres.environment(postgres.create_database())
    faults = {"FAULTS_ENABLED": "true", "FAULTS_TOKEN": TOKEN, "FAULTS_DIR": str(folder), "APP_PORT": "0"}
    result = run({**environment, **faults})
    assert result.returncode != 0
    assert "Cannot start: FAULTS_DIR: " in result.stderr
    assert "Traceback" not in result.stderr


def test_the_folder_of_the_switches_is_private(service: Running) -> None:
    folder = next(Path(service.server.environment["TMPDIR"]).glob("sightline-faults-*"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _ready(service: Running) -> bool:
    with httpx2.Client(base_url=service.url, timeout=30) as client:
        return client.get("/readyz").status_code == 200
