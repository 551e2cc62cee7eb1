"""Containers for those who have no engine or no registry: `python3 -m stack` prints the commands."""

from __future__ import annotations

import shlex
import subprocess
import sys

from native import backup
from native.errors import NativeError
from stack import checking, compose, database, engine, images, outdated
from stack.place import DockerPlace
from stack.programs import explanation

USAGE = """usage: python3 -m stack COMMAND
  run PROGRAM ...  run a program with a Docker engine and all images; a private engine ends with its last user
  check            check docker-compose.yml
  outdated         say which upstream images have newer versions
  standins         build stand-ins for the upstream images that can't be pulled
  start            start a private engine (where none answers) and leave it running
  env              print the variables that lead a shell to the private engine
  stop             stop the private engine
  up, down, status, logs [SERVICE] [--follow], psql, check-config, reload, clean [--yes], secrets, backup,
  restore ARCHIVE [--yes], grafana-password, pull
                   what `make` calls where a Docker engine answers
"""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", _, *_]:
            with engine.engine() as environment:
                images.obtain(environment)
                return subprocess.run(arguments[1:], env=environment).returncode
        case ["check"]:
            compose.check(engine.client())
        case ["standins"]:
            with engine.engine() as environment:
                images.obtain(environment)
        case ["start"]:
            if not engine.start():
                print("A Docker engine answers already; nothing to start.")
        case ["env"]:
            for name, value in engine.private_environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case ["stop"]:
            if not engine.stop():
                print("No private engine of this project runs.")
        case ["up"]:
            compose.up()
        case ["down"]:
            compose.down()
        case ["status"]:
            compose.status()
        case ["reload"]:
            compose.reload()
        case ["psql"]:
            database.psql()
        case ["check-config"]:
            return checking.check_config()
        case ["logs", *options]:
            service = [option for option in options if option != "--follow"]
            compose.logs(" ".join(service), "--follow" in options)
        case ["clean", *options]:
            compose.clean("--yes" in options)
        case ["backup"]:
            backup.backup(DockerPlace(), compose.backups_folder())
        case ["restore", archive, *options]:
            backup.restore(DockerPlace(), archive, "--yes" in options, compose.backups_folder())
        case ["pull"]:
            compose.pull()
        case ["grafana-password"]:
            compose.grafana_password()
        case ["outdated"]:
            outdated.report()
        case ["secrets"]:
            made = compose.make_secrets()
            print(f"Made: {', '.join(made)}" if made else "All secrets are there.")
        case _:
            print(USAGE, end="", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NativeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(explanation(error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
