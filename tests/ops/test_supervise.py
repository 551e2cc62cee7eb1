"""Which processes are the stack's own, also where its folder has another name by now."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from ops import servers
from ops.supervise import MARK, Supervisor, config
from tests.running import free_port, wait_until


def test_processes_come_along_with_a_folder_that_is_moved() -> None:
    with tempfile.TemporaryDirectory() as parent:  # short, as a socket's name must be
        before, after = Path(parent, "before"), Path(parent, "after")
        (before / "run").mkdir(parents=True)
        (before / "run" / "supervisord.conf").write_text(
            f"[supervisord]\npidfile={before}/run/supervisord.pid\nlogfile={before}/logs/supervisord.log\n"
        )
        environment = {"PATH": os.environ["PATH"], MARK: str(before)}
        with subprocess.Popen(["sleep", "60"], env=environment) as process:

            def ours(state: Path) -> bool:
                return process.pid in [one.pid for one in Supervisor(state).leftovers()]

            try:
                assert ours(before)
                shutil.copytree(before, after)
                assert not ours(after), "the first one is still there"
                shutil.rmtree(after)
                before.rename(after)
                assert ours(after)
                Supervisor(after).stop()
                assert process.wait(300) != 0
            finally:
                process.kill()


def test_a_command_of_several_lines_is_passed_on_whole() -> None:
    """Valkey's: its password comes from a file, through a document on its standard input."""
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        password = Path(parent, "valkey_password")
        password.write_text("secret")
        valkey = servers.valkey(free_port(), password)
        assert any("\n" in word for word in valkey.command)
        supervisor = Supervisor(Path(parent))
        supervisor.start(config(supervisor, [valkey], ""))
        try:
            wait_until(lambda: valkey.probe() is None)
            with socket.create_connection(("127.0.0.1", valkey.port), 60) as connection:
                connection.sendall(b"PING\r\nAUTH secret\r\n")
                answers = connection.makefile()
                assert [answers.readline()[:7], answers.readline()] == ["-NOAUTH", "+OK\n"]
        finally:
            supervisor.stop()
        assert supervisor.leftovers() == []
