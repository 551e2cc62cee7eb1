"""`python -m app`: migrate the database, then serve.

`python -m app migrate` does the first part only. `python -m app check` builds the application, which reads every
setting and connects to nothing, and ends.
"""

from __future__ import annotations

import argparse
import logging.config
import os
import sys

from app.db.migrate import MigrationError, migrate
from app.logs import log_config
from app.server import ServeError, serve
from app.settings import Settings, SettingsError, describe_settings, load_settings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description=__doc__,
        epilog=f"settings, from the environment:\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=("serve", "migrate", "check"), default="serve")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        if arguments.command == "check":
            _check(settings)
            return 0
        logging.config.dictConfig(log_config(settings.log_level, settings.log_format))
        migrate(settings)
        if arguments.command == "serve":
            serve(settings)
    except (SettingsError, MigrationError, ServeError) as error:
        print(f"Cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _check(settings: Settings) -> None:
    """Build the application as a worker does, without the shared metrics folder of a running service.

    Raises:
        SettingsError: every worker would reject the settings.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    # Imported here: this process must not register in the metrics as a worker.
    from app.main import create_app

    create_app(settings)


if __name__ == "__main__":
    sys.exit(main())
