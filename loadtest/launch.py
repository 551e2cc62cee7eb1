"""What every load test starts with, in containers or not."""

import os
import time
from pathlib import Path

from loadtest.settings import Settings

REPORTS = Path(__file__).parent / "reports"
# Requests in flight may finish; Locust prints no statistics of its own beside the verdict's table.
OPTIONS = ("--stop-timeout", "60", "--loglevel", "WARNING", "--only-summary")


def announce(settings: Settings, host: str) -> Path:
    """Print what is about to run.

    Returns:
        The path of its report.
    """
    REPORTS.mkdir(exist_ok=True)
    report = REPORTS / time.strftime(f"%Y%m%d-%H%M%S-{settings.shape}.html")
    print(
        f"{settings.shape}: {settings.users} users for {settings.duration:g} s against {host};"
        f" report: {os.path.relpath(report)}",
        flush=True,
    )
    return report


def announce_page(address: str) -> None:
    """Print the address of Locust's web page."""
    print(f"Locust's web page: {address} (Ctrl-C stops it)", flush=True)
