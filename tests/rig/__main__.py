"""`python3 -m tests.rig`: a Docker engine and images for those who have no engine or no registry.

Standard library only.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from types import FrameType

from ops import console
from ops.compose import ALL_PROFILES
from ops.console import log
from ops.errors import OpsError, refusal
from ops.shell import run
from tests.rig import engine, standins
from tests.rig.paths import PROJECT

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
USAGE = """usage: python3 -m tests.rig COMMAND
  run PROGRAM ...  run a program with a Docker engine and all images; a private engine ends with its last user
  check            check docker-compose.yml with Docker's client
  standins         build stand-ins for the upstream images that can't be pulled
  start            start a private engine (where none answers) and leave it running
  env              print the variables that lead a shell to the private engine
  stop             stop the private engine
"""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", _, *_]:
            with engine.engine() as environment:
                standins.obtain(environment)
                return subprocess.run(arguments[1:], env=environment).returncode
        case ["check"]:
            run(["docker", "compose", ALL_PROFILES, "config", "--quiet"], engine.client(), cwd=PROJECT)
        case ["standins"]:
            with engine.engine() as environment:
                standins.obtain(environment)
        case ["start"]:
            if not engine.start():
                print("A Docker engine answers already; nothing to start.")
        case ["env"]:
            for name, value in engine.private_environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case ["stop"]:
            if not engine.stop():
                print("No private engine of this project runs.")
        case _:
            print(USAGE, end="", file=sys.stderr)
            return 2
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal ends the command, and the engine with it; further ones don't interrupt that."""
    for end in ENDS:
        signal.signal(end, lambda *_: None)
    raise KeyboardInterrupt


if __name__ == "__main__":
    console.configure()
    for end in ENDS:
        if signal.getsignal(end) != signal.SIG_IGN:  # as under nohup
            signal.signal(end, _interrupt)
    try:
        sys.exit(main(sys.argv[1:]))
    except OpsError as error:
        log.error("%s", error)
        sys.exit(1)
    except OSError as error:
        log.error("%s", refusal(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
