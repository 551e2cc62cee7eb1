"""Where the private engine keeps things: what lasts in a folder that git ignores, what doesn't in /run."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HOME = PROJECT / ".stack"
PROGRAMS = HOME / "engine"  # Docker's programs, unpacked
DATA = HOME / "data"  # images, volumes and build cache
LOG = HOME / "dockerd.log"

# One private engine a machine, and socket names must be short: a fixed folder, which a reboot empties.
RUN = Path("/run/sightline-engine")
SOCKET = RUN / "docker.sock"
EXEC = RUN / "exec"
PID_FILE = RUN / "dockerd.pid"
OWNER_FILE = RUN / "project"  # the project folder whose engine it is
KEPT_FILE = RUN / "kept"  # there while `start` wants the engine to outlive its users
GATE_LOCK = RUN / "gate.lock"  # held while the engine starts or stops
USERS_LOCK = RUN / "users.lock"  # shared by the processes that use the engine
