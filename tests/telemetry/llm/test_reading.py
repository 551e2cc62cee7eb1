"""What is read of a usage, and of which type an error is."""

from __future__ import annotations

from typing import Any

import pytest

from app.telemetry import llm as telemetry
from app.telemetry.llm import Usage
from tests.telemetry.llm.shapes.responses import RESPONSES_USAGE


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": -3, "completion_tokens": "many"}, None),
        ({"input_tokens": 3, "output_tokens": 4}, Usage(3, 4)),
        ({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": None}, Usage(3, 4)),
        (RESPONSES_USAGE, Usage(120, 30, cache_read=100, reasoning=10)),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 8}},
            Usage(9, 1, cache_write=8),
        ),
        # A part larger than its whole lies beside it.
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 100},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(209, 5, cache_read=100, cache_write=100, reasoning=3),
        ),
        (
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 50},
            },
            Usage(6, 1, cache_write=5, cache_write_1h=5),
        ),
        ({"prompt_tokens": 10**400, "completion_tokens": 1}, Usage(0, 1)),
    ],
)
def test_read_usage(usage: Any, expected: Usage | None) -> None:
    assert telemetry.read_usage(usage) == expected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "connection"),
        (OSError(), "connection"),
        (ValueError("context length"), "other"),
        (type("ReadTimeout", (type("TimeoutException", (Exception,), {}),), {})(), "timeout"),
        (type("Refused", (Exception,), {"status_code": 413})("request too large"), "bad_request"),
        (type("Refused", (Exception,), {"status_code": 402})(), "auth"),
        (type("Refused", (Exception,), {"status_code": 408})(), "timeout"),
        (type("Refused", (Exception,), {"status_code": 418})(), "bad_request"),
        (type("Refused", (Exception,), {"status_code": 504})(), "timeout"),
        (type("Refused", (Exception,), {"status_code": 502})(), "server"),
        (type("Refused", (Exception,), {"status_code": "none"})(), "other"),
        # Ollama's client, for an error in the middle of a stream
        (type("ResponseError", (Exception,), {"status_code": -1, "error": "the runner has stopped"})(), "server"),
        (type("Quota", (Exception,), {"status_code": 429, "code": "insufficient_quota"})(), "rate_limit"),
        (type("ServerDisconnectedError", (type("ClientConnectionError", (Exception,), {}),), {})(), "connection"),
    ],
)
def test_error_type(error: Exception, kind: str) -> None:
    assert telemetry.error_type(error) == kind
    assert kind in telemetry.ERROR_TYPES


def test_a_stream_that_breaks_off_in_aiohttp_is_no_bad_request() -> None:
    error = type("ClientPayloadError", (Exception,), {})("Response payload is not completed")
    error.__cause__ = type("TransferEncodingError", (Exception,), {"code": 400})()  # of aiohttp itself
    assert telemetry.error_type(error) == "connection"
