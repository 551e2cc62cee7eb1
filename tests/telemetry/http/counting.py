"""What one request changed in the counts of a service, and what it should have changed."""

import pytest

from tests.running import wait_until
from tests.telemetry.serving import Samples, Served, value


def moved(before: Samples, after: Samples, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """The series of this name that changed, and by how much."""
    keys = {key for key in (*before, *after) if key[0] == name}
    changes = {key[1]: after.get(key, 0.0) - before.get(key, 0.0) for key in keys}
    return {labels: change for labels, change in changes.items() if change}


def idle(server: Served) -> Samples:
    """What is counted once no request is in progress any more."""

    def samples() -> Samples | None:
        now = server.samples()
        return None if value(now, "http_requests_in_progress") else now

    now = wait_until(samples)
    assert now is not None
    return now


def one(method: str, endpoint: str, status: int) -> dict[frozenset[tuple[str, str]], float]:
    return {frozenset({("method", method), ("endpoint", endpoint), ("status_code", str(status))}): 1.0}


FAILED = {
    "http_request_duration_seconds": "http_failed_request_duration_seconds",
    "http_response_start_seconds": "http_failed_response_start_seconds",
}


def check(before: Samples, after: Samples, method: str, endpoint: str, status: int, exceptions: int = 0) -> None:
    """Exactly one request was counted, in all metrics, under this name."""
    assert moved(before, after, "http_requests_total") == one(method, endpoint, status)
    row = {frozenset({("method", method), ("endpoint", endpoint)}): 1.0}
    for name in ("http_request_duration_seconds", "http_request_size_bytes", "http_response_size_bytes"):
        assert moved(before, after, f"{name}_count") == row, name
    for name, failed in FAILED.items():
        for part in ("count", "sum", "bucket"):
            wanted = moved(before, after, f"{name}_{part}") if 500 <= status <= 599 else {}
            assert moved(before, after, f"{failed}_{part}") == pytest.approx(wanted), failed
    assert sum(moved(before, after, "http_exceptions_total").values()) == exceptions
    in_progress = {key: number for key, number in after.items() if key[0] == "http_requests_in_progress" and number}
    assert in_progress == {}
