"""A folder that fills up, files that are truncated, folders of others: no worker dies, nothing is miscounted."""

import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.telemetry.storage.folder import check
from tests.disk import small_disk
from tests.running import wait_until
from tests.telemetry.serving import GUNICORN, UVICORN, Served, serve, value

APP = "tests.telemetry.storage.wide:app"


def ask(server: Served, paths: list[str]) -> None:
    for path in paths:
        assert server.send("GET", path, "x-trace: abc\r\n")[0] == 200, server.log.read_text()


def pids(server: Served) -> set[str]:
    return {server.send("GET", "/pid")[1].decode() for _ in range(30)}


def both(server: Served) -> set[str]:
    """The two workers, once each has answered: on a busy machine one may take thirty requests in a row."""
    return wait_until(lambda: found if len(found := pids(server)) == 2 else set())


def total(server: Served, **labels: str) -> float:
    return value(server.samples(), "http_requests_total", **labels)


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
@pytest.mark.parametrize("size", ["12k", "64k", "128k", "400k", "1200k"])
@pytest.mark.attack("the telemetry's folder is full", tried=300)
def test_a_full_disk_kills_no_worker(tmp_path: Path, command: tuple[str, ...], size: str) -> None:
    """Of these sizes each is full at another step: schema, first file, series, exemplars. Every request is answered."""
    with small_disk(tmp_path / "disk", size) as folder:
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        with serve(*command, APP, "--workers", "2", environment=environment) as server:
            before = both(server)
            paths = [f"/r{number}" for number in range(150)]
            ask(server, paths)
            ask(server, paths)
            assert both(server) == before, "a worker was replaced"
            log = server.log.read_text()
            assert "Traceback" not in log
            if size in ("12k", "64k", "128k"):
                wait_until(lambda: value(server.samples(), "telemetry_unshared_series") > 0)
                assert 1 <= len(re.findall("metrics: no space left in|are not shared in", log)) <= 2, log  # per worker


@pytest.mark.attack("the telemetry's folder is full", tried=20)
@pytest.mark.parametrize("files", [2, 3])
def test_a_folder_that_takes_no_worker_is_left_by_all(tmp_path: Path, files: int) -> None:
    """Its file system has no file left for the schema, or for the first worker."""
    with small_disk(tmp_path / "disk", f"4m,nr_inodes={files}") as folder:
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        with serve(*UVICORN, APP, "--workers", "2", environment=environment) as server:
            both(server)
            ask(server, ["/r1"] * 20)
            assert {total(server, endpoint="/r1") for _ in range(10)} == {20}
            assert server.log.read_text().count("metrics of this process are not shared in") in (1, 2)


@pytest.mark.attack("the telemetry's folder is full", tried=20)
def test_a_worker_that_finds_no_room_beside_another_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m,nr_inodes=4") as folder:
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        with serve(*UVICORN, APP, "--workers", "2", environment=environment) as server:
            both(server)
            ask(server, ["/r1"] * 20)
            wait_until(lambda: value(server.samples(), "telemetry_unshared_series") > 0)
            wait_until(lambda: total(server, endpoint="/r1") == 20)  # of the one that sees both
            assert server.log.read_text().count("metrics of this process are not shared: ") == 1


@pytest.mark.attack("the telemetry's folder is full", tried=130)
def test_what_has_room_stays_exact(tmp_path: Path) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(small_disk(tmp_path / "disk", "600k"))
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        server = stack.enter_context(serve(*UVICORN, APP, "--workers", "2", environment=environment))
        wait_until(lambda: len(pids(server)) == 2)
        for _ in range(10):
            pids(server)
        counted = total(server, endpoint="/pid")
        (folder / "ballast").write_bytes(b"")
        with (folder / "ballast").open("ab", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError:
                pass
        ask(server, [f"/r{number}" for number in range(100)])
        pids(server)
        assert total(server, endpoint="/pid") == counted + 30


@pytest.mark.parametrize("length", [0, 100, 4096, 70_000])
@pytest.mark.attack("a file of the telemetry truncated under a live worker", tried=2)
def test_a_file_truncated_under_a_live_worker(tmp_path: Path, length: int) -> None:
    """Workers live, the loss is logged, and what comes then is counted."""
    folder = tmp_path / "metrics"
    with serve(*UVICORN, APP, "--workers", "2", environment={"PROMETHEUS_MULTIPROC_DIR": str(folder)}) as server:
        before = both(server)
        for name in ("worker-0", "worker-1"):
            os.truncate(folder / name, length)
            ask(server, [f"/r{number}" for number in range(20)])
        assert both(server) == before
        if length < 65_536:  # beyond it nothing was counted yet
            log = server.log.read_text
            wait_until(lambda: server.samples() and log().count("was truncated while in use") == 2)
        counted = total(server, endpoint="/r1")
        ask(server, ["/r1"] * 20)
        assert total(server, endpoint="/r1") == counted + 20


@pytest.mark.attack("a file of the telemetry truncated under a live worker")
def test_a_schema_truncated_under_a_live_service(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    with serve(*UVICORN, APP, "--workers", "2", environment={"PROMETHEUS_MULTIPROC_DIR": str(folder)}) as server:
        wait_until(lambda: len(pids(server)) == 2)
        os.truncate(folder / "schema", 0)
        ask(server, ["/r1", "/r2", "/pid"] * 5)
        assert total(server) > 0
        assert f"{folder} is damaged" in server.log.read_text()


def test_two_services_in_one_folder_are_kept_apart(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    command = (*UVICORN, APP, "--workers", "2")
    with serve(*command, environment=environment) as one:
        wait_until(lambda: len(pids(one)) == 2)
        ask(one, ["/r1"] * 5)
        with serve(*command, environment=environment) as other:
            wait_until(lambda: len(pids(other)) == 2)
            ask(other, ["/r2"] * 7)
            ask(one, ["/r1"] * 5)
            assert [total(one, endpoint=path) for path in ("/r1", "/r2")] == [10, 0]
            assert [total(other, endpoint=path) for path in ("/r1", "/r2")] == [0, 7]
            assert "is in use by another service" in other.log.read_text()
            assert value(other.samples(), "telemetry_unshared_series") == 0, "in a private folder"


def test_what_another_service_left_is_no_number_of_this_one(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    for _ in range(2):
        with serve(*UVICORN, APP, "--workers", "2", environment=environment) as server:
            ask(server, ["/r1"] * 5)
            assert total(server, endpoint="/r1") == 5
            assert (tmp_path / "metrics" / "worker-0").exists()


def test_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    """Is left for a private one, which the workers share."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    folder.chmod(0o777)
    with serve(*UVICORN, APP, "--workers", "2", environment={"PROMETHEUS_MULTIPROC_DIR": str(folder)}) as server:
        wait_until(lambda: len(pids(server)) == 2)
        ask(server, ["/r1"] * 20)
        assert {total(server, endpoint="/r1") for _ in range(10)} == {20}
        assert list(folder.iterdir()) == []
        assert f"{folder} is writable by other users: chmod 700 it" in server.log.read_text()


def test_a_folder_that_cannot_be_shared_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="is a symbolic link; set the folder itself"):
        check(tmp_path / "link")
    check(tmp_path / "own")
    monkeypatch.setattr("os.geteuid", lambda: (tmp_path / "own").stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user; set a folder of this user"):
        check(tmp_path / "own")
