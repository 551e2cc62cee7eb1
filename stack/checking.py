"""`make check-config` with Docker: the servers' own tools, out of their images, look at the project's configuration."""

from __future__ import annotations

import subprocess

from stack import images
from stack.paths import PROJECT


def check_config() -> int:
    """Let the tools say what they find; the exit code of the first that finds fault."""
    rules = sorted(f"rules/{file.name}" for file in (PROJECT / "prometheus" / "rules").glob("*.yml"))
    for server, tool, *arguments in (
        ("prometheus", "promtool", "check", "config", "--syntax-only", "prometheus.yml"),
        ("prometheus", "promtool", "check", "rules", "--lint=all", "--lint-fatal", *rules),
        ("alertmanager", "amtool", "check-config", "alertmanager.yml"),
    ):
        place = ["--rm", "--network=none", f"--volume={PROJECT / server}:/check:ro", "--workdir=/check"]
        command = ["docker", "run", *place, f"--entrypoint={tool}", images.upstream()[server], *arguments]
        if code := subprocess.run(command).returncode:
            return code
    return 0
