"""Alertmanager, with the flags of native mode, is killed: silences that are older than its snapshots' interval stay."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ops import servers
from tests.alertmanager.silences import create_silence, silences
from tests.running import start, wait_until
from tests.servers import Alertmanager

FLAG = "--data.maintenance-interval=30s"
KILLS = 5


@pytest.mark.attack("Alertmanager killed: its silences", tried=KILLS)
def test_silences_survive_kills(tmp_path: Path) -> None:
    """Without the flag they were written every 15 minutes only. Here it is shorter than in the stack."""
    config = tmp_path / "alertmanager.yml"
    config.write_text("{route: {receiver: nobody}, receivers: [{name: nobody}]}")

    def make(port: int) -> servers.Server:
        server = servers.alertmanager(config, tmp_path / "data", port)
        assert FLAG in server.command
        return replace(server, command=tuple(word.replace(FLAG, FLAG.replace("30s", "1s")) for word in server.command))

    def run() -> Alertmanager:
        started: Alertmanager = start(make, tmp_path, Alertmanager)
        return started

    made: set[str] = set()
    alertmanager = run()
    try:
        for kill in range(KILLS):
            identity = create_silence(alertmanager.url, f"Nothing{kill}")
            wait_until(partial(_has, tmp_path / "data" / "silences", identity))
            made.add(identity)
            alertmanager.stop(signal.SIGKILL)
            alertmanager = run()
            assert silences(alertmanager.url) == made
    finally:
        alertmanager.stop()


def _has(file: Path, identity: str) -> bool:
    return file.exists() and identity.encode() in file.read_bytes()
