"""`make up` with LONGTERM_RETENTION in Docker: VictoriaMetrics has the samples, confined as the others are."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.ops.docker.conftest import NAME, Stack
from tests.running import wait_until

pytestmark = pytest.mark.stack
STORE = "victoriametrics"
SOURCE = f"/api/datasources/proxy/uid/{STORE}"


@pytest.fixture(scope="module")
def longterm(stack: Stack) -> Iterator[Stack]:
    """The stack with the store; without it again afterwards."""
    stack.environment["LONGTERM_RETENTION"] = "1y"
    try:
        assert f"Samples also go to http://{STORE}:8428/api/v1/write.\n" in stack.make("up")
        yield stack
    finally:
        del stack.environment["LONGTERM_RETENTION"]
        stack.make("up")
        stack.up()


def grafana(stack: Stack, path: str) -> httpx2.Response:
    password = stack.passwords()["grafana_admin_password"]
    return httpx2.get(f"{stack.url('grafana')}{path}", auth=("admin", password), timeout=60)


def test_samples_arrive_and_grafana_reads_them(longterm: Stack) -> None:
    jobs = {job for job in longterm.prometheus.targets() if job != "locust"}

    def arrived() -> bool:
        found = grafana(longterm, f"{SOURCE}/api/v1/query?query=up").json()["data"]["result"]
        return {one["metric"]["job"] for one in found} >= jobs

    wait_until(arrived)
    assert "SAMPLES ALSO GO TO" in longterm.make("status")


@pytest.mark.parametrize("path", ["/api/v1/admin/tsdb/delete_series?match[]=up", "/snapshot/create"])
def test_queries_through_grafana_cannot_delete_anything(path: str, longterm: Stack) -> None:
    assert grafana(longterm, f"{SOURCE}{path}").status_code == 401


def test_it_is_confined_and_reachable_from_the_stack_only(longterm: Stack) -> None:
    containers = longterm.containers()
    store = containers[STORE]
    assert store["HostConfig"]["ReadonlyRootfs"]
    assert store["HostConfig"]["CapDrop"] == ["ALL"]
    assert store["Config"]["User"] == "65534:65534"
    assert store["HostConfig"]["Memory"] == 512 << 20
    assert not any(store["NetworkSettings"]["Ports"].values())
    assert set(store["NetworkSettings"]["Networks"]) == {f"{NAME}_monitoring"}
    assert set(containers["prometheus"]["NetworkSettings"]["Networks"]) == {f"{NAME}_monitoring", f"{NAME}_published"}


def test_the_path_of_another_product_is_refused_and_changes_nothing(longterm: Stack) -> None:
    """Asked from this machine, as `make up` does: here of Prometheus, which takes no samples."""
    before = {service: one["Id"] for service, one in longterm.containers().items()}
    url = f"{longterm.url('prometheus')}/api/v1/write"
    refused = longterm.try_to_make("up", settings={"REMOTE_WRITE_URL": url})
    assert refused.returncode == 1
    assert f"REMOTE_WRITE_URL: {url} responds with 404, so it accepts no samples there." in refused.stderr
    assert {service: one["Id"] for service, one in longterm.containers().items()} == before


def test_without_the_setting_it_ends_and_its_data_stay(longterm: Stack) -> None:
    setting = longterm.environment.pop("LONGTERM_RETENTION")
    try:
        longterm.make("up")
        assert STORE not in longterm.health()
        assert f"{NAME}_{STORE}-data" in longterm.docker("volume", "ls", "--quiet").split()
        assert STORE not in {source["uid"] for source in grafana(longterm, "/api/datasources").json()}
    finally:
        longterm.environment["LONGTERM_RETENTION"] = setting
