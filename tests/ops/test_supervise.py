"""Which processes are the stack's own, also where its folder has another name by now."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ops.supervise import MARK, Supervisor


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
