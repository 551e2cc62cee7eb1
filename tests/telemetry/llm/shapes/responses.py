"""OpenAI's responses: an event for each piece, and the whole answer in the last one."""

from __future__ import annotations

from typing import Any

from app.telemetry.llm import Usage
from tests.telemetry.llm.shapes.shape import Body, Shape


def response(status: str, *, output: Any = None, usage: Any = None, **more: Any) -> Body:
    common = {"id": "r1", "object": "response", "created_at": 1, "model": "m", "tools": [], "tool_choice": "auto"}
    said = {"type": "message", "id": "i1", "role": "assistant", "status": "completed", "content": []}
    return (
        common
        | {
            "status": status,
            "output": [said] if output is None else output,
            "usage": usage,
            "parallel_tool_calls": True,
            "error": None,
            "incomplete_details": None,
        }
        | more
    )


def responses(name: str, delta: Body | None, status: str, truth: Usage | None, usage: Any = None, **more: Any) -> Shape:
    output, details = more.pop("output", None), more.pop("details", {})
    ended = response(status, output=output, usage=usage, **details)
    at = {"item_id": "1", "output_index": 0, "content_index": 0, "logprobs": [], "sequence_number": 1}
    events = [{"type": "response.created", "response": response("in_progress", output=[]), "sequence_number": 0}]
    events += [at | delta] if delta else []
    events.append({"type": f"response.{status}", "response": ended, "sequence_number": 2})
    return Shape(name, "responses", events, truth, whole=ended, first_token=delta is not None, **more)


RESPONSES_USAGE = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 10},
    "total_tokens": 150,
}
RESPONSES_TRUTH = Usage(120, 30, cache_read=100, reasoning=10)
TEXT = {"type": "response.output_text.delta", "delta": "Hi"}
CALL = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"}

RESPONSES = [
    responses("text", TEXT, "completed", RESPONSES_TRUTH, RESPONSES_USAGE),
    *(
        responses(kind, {"type": f"response.{kind}.delta", "delta": "x"}, "completed", RESPONSES_TRUTH, RESPONSES_USAGE)
        for kind in (
            "custom_tool_call_input",
            "mcp_call_arguments",
            "code_interpreter_call_code",
            "reasoning_summary_text",
            "reasoning_text",
            "function_call_arguments",
            "refusal",
        )
    ),
    responses(
        "a function call", TEXT, "completed", RESPONSES_TRUTH, RESPONSES_USAGE, output=[CALL], finish=("tool_calls",)
    ),
    responses(
        "a limit",
        TEXT,
        "incomplete",
        RESPONSES_TRUTH,
        RESPONSES_USAGE,
        details={"incomplete_details": {"reason": "max_output_tokens"}},
        finish=("length",),
    ),
    responses(
        "failed",
        None,
        "failed",
        None,
        details={"error": {"code": "rate_limit_exceeded", "message": "no"}},
        finish=(),
        outcome="error",
        error="rate_limit",
        missing="error",
    ),
    responses("cancelled", TEXT, "cancelled", None, finish=(), outcome="cancelled", missing="cancelled"),
    Shape(
        "overloaded, in an event of its own",
        "responses",
        [{"type": "error", "code": "server_is_overloaded", "message": "no", "param": None, "sequence_number": 1}],
        None,
        finish=(),
        outcome="error",
        error="overloaded",
        first_token=False,
        missing="error",
    ),
]
