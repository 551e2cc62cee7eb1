"""What a load test begins with, whether it runs in containers or not."""

import os
import time
from pathlib import Path

from loadtest.settings import Settings

REPORTS = Path(__file__).parent / "reports"
# How Locust behaves: an answer that is being waited for may come; no table of its own beside the verdict's.
OPTIONS = ("--stop-timeout", "60", "--loglevel", "WARNING", "--only-summary")


def announce(settings: Settings, host: str) -> Path:
    """Say what is about to run; returns where its report belongs."""
    REPORTS.mkdir(exist_ok=True)
    report = REPORTS / time.strftime(f"%Y%m%d-%H%M%S-{settings.shape}.html")
    print(
        f"{settings.shape}: {settings.users} users for {settings.duration:g} s against {host};"
        f" report: {os.path.relpath(report)}",
        flush=True,
    )
    return report


def announce_page(port: int) -> None:
    """Say where Locust's page is about to be."""
    print(f"Locust's page: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
