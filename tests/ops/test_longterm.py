"""`make up` with LONGTERM_RETENTION: VictoriaMetrics is a part of the stack, and gone again without it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from ops.paths import PROJECT
from tests.ops.native import Stack, native_stack
from tests.running import wait_until

ON = {"LONGTERM_RETENTION": "1y"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with native_stack(APP_WORKERS="1") as made:
        yield made


def store(stack: Stack, path: str) -> httpx2.Response:
    return httpx2.get(f"http://127.0.0.1:{stack.port('longterm')}{path}", timeout=60)


def test_samples_are_there_when_everything_is_healthy(stack: Stack) -> None:
    result = stack.run("up", **ON)
    assert result.returncode == 0, result.stdout + result.stderr
    address = f"http://127.0.0.1:{stack.port('longterm')}/api/v1/write"
    assert f"Samples also go to {address}.\n" in result.stdout
    wait_until(lambda: store(stack, "/api/v1/query?query=up").json()["data"]["result"])
    status = stack.well(**ON)
    assert f"\nSAMPLES ALSO GO TO\n{address}\n" in status.stdout
    sent = wait_until(lambda: store(stack, "/api/v1/series?match[]={__name__=~'.%2B',job='app'}").json()["data"])
    assert not any("grafana_url" in series for series in sent), "links are no labels of series"


@pytest.mark.parametrize("path", ["/api/v1/admin/tsdb/delete_series?match[]=up", "/snapshot/create"])
def test_requests_cannot_delete_series_or_fill_the_disk(path: str, stack: Stack) -> None:
    assert store(stack, path).status_code == 401


def test_grafana_gets_its_data_source(stack: Stack) -> None:
    environment = {**stack.environment, **ON}
    grafana = next(
        server for server in Stack(stack.project, stack.state, environment).stack.servers() if server.name == "grafana"
    )
    assert grafana.environment["GF_PATHS_PROVISIONING"] == f"{PROJECT}/grafana/longterm"
    assert grafana.environment["LONGTERM_URL"] == f"http://127.0.0.1:{stack.port('longterm')}"


@pytest.mark.parametrize("command", ["up", "check-config", "reload"])
def test_an_address_that_takes_no_samples_is_refused_and_changes_nothing(command: str, stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.port('longterm')}/api/v1/receive"
    result = stack.run(command, **ON, REMOTE_WRITE_URL=url)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        f"REMOTE_WRITE_URL: {url} responds with 400, so it accepts no samples there"
    )
    assert url not in (stack.state / "run" / "prometheus" / "prometheus.yml").read_text()


def test_a_second_store_is_reached_after_a_reload(stack: Stack) -> None:
    url = f"http://localhost:{stack.port('longterm')}/api/v1/write"
    assert stack.run("reload", **ON, REMOTE_WRITE_URL=url).returncode == 0
    wait_until(lambda: f"\n{url}\n" in stack.run("status", **ON, REMOTE_WRITE_URL=url).stdout, interval=1)


def test_a_store_that_is_down_shows_in_the_status(stack: Stack) -> None:
    stack.supervisor.stop_server("victoriametrics")
    wait_until(lambda: "behind" in stack.run("status", **ON).stdout, interval=2)
    stack.supervisor.start_server("victoriametrics")
    stack.well(**ON)


def test_a_backup_says_what_it_leaves_out_and_a_restore_leaves_that_alone(stack: Stack) -> None:
    wait_until(lambda: store(stack, "/api/v1/query?query=up").json()["data"]["result"])
    made = stack.run("backup", **ON)
    assert made.returncode == 0, made.stderr
    assert "It does not contain the data of VictoriaMetrics" in made.stdout
    [archive] = (stack.state.parent / "backups").glob("*.tar")
    before = store(stack, "/api/v1/query?query=count_over_time(up[1h])").json()["data"]["result"]
    assert stack.run("restore", f"FROM={archive}", "CONFIRM=1", **ON).returncode == 0
    after = store(stack, "/api/v1/query?query=count_over_time(up[1h])").json()["data"]["result"]
    assert len(after) >= len(before) > 0


def test_without_the_setting_it_is_gone_and_its_data_are_kept_until_clean(stack: Stack) -> None:
    result = stack.run("up")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Samples also" not in result.stdout
    assert "victoriametrics" not in stack.supervisor.processes()
    assert "remote_write:" not in (stack.state / "run" / "prometheus" / "prometheus.yml").read_text()
    assert (stack.state / "longterm").exists()
    assert stack.run("clean", "CONFIRM=1").returncode == 0
    assert not (stack.state / "longterm").exists()
