"""Hosts whose disks are full or that are silent, and an Alertmanager that does not answer."""

from __future__ import annotations

import signal
from http.server import BaseHTTPRequestHandler

import pytest

from tests.grafana.outage.stack import Stack
from tests.grafana.tiles import Tile
from tests.running import wait_until, web_server


class FullDisk(BaseHTTPRequestHandler):
    """An exporter of a host whose disk has no space left."""

    avail, files_free = 1e7, 900

    def do_GET(self) -> None:
        labels = '{device="/dev/vda1",fstype="ext4",mountpoint="/"}'
        values = {
            "size_bytes": 1e9,
            "avail_bytes": self.avail,
            "files": 1000,
            "files_free": self.files_free,
            "readonly": 0,
        }
        lines = [f"node_filesystem_{name}{labels} {value:.0f}" for name, value in values.items()]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write("\n".join(['node_uname_info{nodename="full",release="6"} 1', *lines, ""]).encode())

    def log_message(self, *arguments: object) -> None:
        pass


class NoInodes(FullDisk):
    """An exporter of a host that can create no file, whatever space is left."""

    avail, files_free = 9e8, 10


@pytest.mark.parametrize("exporter", [FullDisk, NoInodes])
def test_a_full_disk_of_one_of_two_hosts_and_then_its_silence(stack: Stack, exporter: type[FullDisk]) -> None:
    with web_server(exporter) as url, stack.targets("node", url.removeprefix("http://")):
        for dashboard in ("overview", "host"):
            wait_until(lambda: stack.tile(dashboard, "Disk") == Tile(0.99, "", "red"))  # noqa: B023
        wait_until(lambda: stack.tile("host", "Hosts up") == Tile(1, "2/2", "green"))
    wait_until(lambda: stack.tile("host", "Hosts up") == Tile(1, "1/1", "green"), timeout=400)
    with stack.targets("node", url.removeprefix("http://")):  # which no longer answers
        wait_until(lambda: stack.tile("host", "Hosts up") == Tile(0.5, "1/2", "orange"))
        wait_until(lambda: (stack.tile("host", "Disk").value or 1) < 0.99)
    wait_until(lambda: stack.tile("host", "Hosts up") == Tile(1, "1/1", "green"), timeout=400)


def test_an_alertmanager_that_does_not_answer(stack: Stack) -> None:
    stack.alertmanager.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: stack.tile("monitoring", "Watchdog") == Tile(0, "lost", "red"))
        wait_until(lambda: stack.tile("monitoring", "Config") == Tile(0.5, "no answer", "orange"))
        for dashboard in ("overview", "monitoring"):  # there is no other one of its job
            wait_until(lambda: stack.tile(dashboard, "Targets up").look == ("4/5", "red"))  # noqa: B023
        wait_until(lambda: stack.tile("monitoring", "Unsent").colour != "green")
    finally:
        stack.alertmanager.process.send_signal(signal.SIGCONT)
    wait_until(lambda: stack.tile("monitoring", "Watchdog") == Tile(1, "arrives", "green"), timeout=400)
