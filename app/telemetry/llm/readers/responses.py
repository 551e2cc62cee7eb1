# SPDX-License-Identifier: Apache-2.0
"""OpenAI's responses API.

    {"type": "response.output_text.delta", "delta": "Hi"}
    {"type": "response.completed", "response": {"object": "response", "status": "completed", "output": [...],
        "usage": {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18, "input_tokens_details": {...}}}}

New kinds of output come with new events: any `response.*.delta` contains output.
"""

from __future__ import annotations

from typing import Any

from ..errors import error_in_answer
from ..metrics import OTHER
from ..shapes import get, items
from .answer import Answer

# Output items that the caller must act upon. The output also lists calls of the provider's own tools, which are not.
_CALLS = frozenset(
    (
        "function_call",
        "custom_tool_call",
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "mcp_approval_request",
    )
)


def claims(thing: Any) -> bool:
    """True for a response, and for the events of its stream."""
    kind = get(thing, "type")
    return get(thing, "object") == "response" or (isinstance(kind, str) and kind.startswith("response."))


def whole(answer: Answer, response: Any) -> None:
    """A complete response, or the one in the last event of a stream."""
    answer.last = response
    answer.id = get(response, "id") or answer.id
    if (usage := get(response, "usage")) is not None:
        answer.usage(usage)
    output = items(get(response, "output"))
    answer.has_content = answer.has_content or bool(output)
    status = get(response, "status")
    if (error := get(response, "error")) is not None or status == "failed":
        answer.failure = error_in_answer(error)
    elif status == "incomplete":
        answer.finish(get(get(response, "incomplete_details"), "reason") or OTHER)
    elif status == "cancelled":
        answer.outcome = "cancelled"
    elif status in ("queued", "in_progress"):  # in the background: this is not the final response yet
        answer.outcome = "incomplete"
    elif status == "completed":
        answer.finish("tool_calls" if any(get(item, "type") in _CALLS for item in output) else "stop")
    answer.ended = answer.ended or status in ("completed", "incomplete", "failed")


def event(answer: Answer, event: Any) -> None:
    """An event of a stream."""
    answer.last = event
    kind = get(event, "type")
    if get(event, "object") == "response":
        whole(answer, event)
    elif kind.endswith((".delta", ".partial_image")):
        delta(answer, event)
    elif kind in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
        response = get(event, "response")
        whole(answer, response)
        if kind == "response.failed" and answer.failure is None:
            answer.failure = error_in_answer(get(response, "error"))
        elif kind == "response.cancelled":
            answer.outcome = "cancelled"
    elif kind == "response.error":
        answer.failure = error_in_answer(event)
    elif kind == "response.output_item.done" or (kind.endswith(".done") and get(event, "text")):
        answer.token()  # from a gateway that sends no deltas


def delta(answer: Answer, event: Any) -> None:
    """A piece of output. Called for each event."""
    answer.last = event
    if answer.first_token is None and get(event, "delta" if get(event, "delta") else "partial_image_b64"):
        answer.token("reasoning" in get(event, "type"))
