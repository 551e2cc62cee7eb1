"""The commands of the documents that need Docker, run as they stand there on the running containers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from ops.paths import PROJECT
from tests.docs.commands import COMMANDS
from tests.ops.docker import test_loadtest, test_replicas
from tests.ops.docker.conftest import Stack

pytestmark = pytest.mark.stack

NOT_RUN = {
    "docker image rm": "names a subcommand",
    "docker image prune": "would take the images of others",
    "docker builder prune": "would take the images of others",
    "docker system prune": "would take the images of others",
    **dict.fromkeys(test_loadtest.BY_HAND, "tests/ops/docker/test_loadtest.py runs it"),
    test_replicas.BY_HAND: "tests/ops/docker/test_replicas.py runs it",
    "docker compose up -d SERVICE": "for the reader to fill in",
}


def test_docker_commands_of_the_documents_run(stack: Stack, summarize: Callable[[str, str], None]) -> None:
    commands = list(dict.fromkeys(command.text for command in COMMANDS if command.text.startswith("docker ")))
    failed = []
    for command in commands:
        if command in NOT_RUN:
            continue
        # A search that finds nothing is the best that can happen; what it searches must be there.
        asked = command.partition(" | ")[0].replace("$(docker ps -aq)", "$(docker compose ps --all --quiet)")
        result = subprocess.run(
            ["bash", "-ec", asked],
            cwd=PROJECT,
            env={**os.environ, **stack.environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if result.returncode:
            failed.append(f"{command}: {result.stderr.strip()}")
    assert failed == []
    stack.wait_until_healthy()
    title = "docker commands of the documents"
    summarize(title, f"run: {len(commands) - len(NOT_RUN)}")
    for command, reason in NOT_RUN.items():
        assert command in commands, f"no document has it any more: {command}"
        summarize(title, f"not run: {command} ({reason})")
