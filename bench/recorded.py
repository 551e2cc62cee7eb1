"""Prints /metrics of the reference service after traffic of every kind, for bench_scale.

    python bench/recorded.py

It is run in the folder of the build whose service is meant, with that folder in PYTHONPATH.
"""

from __future__ import annotations

import sys
import urllib.request

from tests import servers, traffic

SECONDS = 20.0


def main() -> None:
    settings = {"APP_WORKERS": "2", "LLM_PROVIDER": "simulated"}
    with servers.postgres() as postgres, servers.app({**postgres.environment(), **settings}) as app:
        traffic.drive(app.url, seconds=SECONDS)
        with urllib.request.urlopen(f"{app.url}/metrics", timeout=30) as answer:
            sys.stdout.write(answer.read().decode())


if __name__ == "__main__":
    main()
