"""The health of what Prometheus scrapes, as Prometheus sees it. Standard library only: Docker mode asks, too."""

from __future__ import annotations

import json
import urllib.request

OPTIONAL_JOBS = {"locust"}  # scrape jobs whose targets need not be there
TIMEOUT = 5.0  # seconds


def targets(prometheus: str) -> dict[str, str]:
    """Job -> health; empty if Prometheus at this address can't be asked. Optional jobs only when up."""
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/targets?state=active", timeout=TIMEOUT) as answer:  # noqa: S310
            active = json.load(answer)["data"]["activeTargets"]
    except (OSError, ValueError, KeyError):
        return {}
    health = {target["labels"]["job"]: target["health"] for target in active}
    return {job: state for job, state in health.items() if job not in OPTIONAL_JOBS or state == "up"}
