"""Silences of a real Alertmanager."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2


def create_silence(url: str, alert: str = "NobodyHasThis") -> str:
    """Silence an alert for an hour at the Alertmanager with this address; its id."""
    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "alertname", "value": alert, "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "a test",
        "comment": "to be kept",
    }
    response = httpx2.post(f"{url}/api/v2/silences", json=silence, timeout=60).raise_for_status()
    return str(response.json()["silenceID"])


def silences(url: str) -> set[str]:
    """The ids of the silences that the Alertmanager with this address has."""
    return {silence["id"] for silence in httpx2.get(f"{url}/api/v2/silences", timeout=60).raise_for_status().json()}
