"""Bedrock's Converse."""

from __future__ import annotations

from app.telemetry.llm import Usage
from tests.telemetry.llm.shapes.shape import Shape

CONVERSE = [
    Shape(
        "Bedrock's Converse",
        "bedrock",
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hello"}}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {
                "metadata": {
                    "usage": {
                        "inputTokens": 15,
                        "outputTokens": 30,
                        "totalTokens": 165,
                        "cacheReadInputTokens": 80,
                        "cacheWriteInputTokens": 40,
                    }
                }
            },
        ],
        Usage(135, 30, cache_read=80, cache_write=40),
        whole={
            "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
            "stopReason": "end_turn",
            "usage": {
                "inputTokens": 15,
                "outputTokens": 30,
                "totalTokens": 165,
                "cacheReadInputTokens": 80,
                "cacheWriteInputTokens": 40,
            },
        },
    ),
    Shape(
        "Bedrock throttles on the way",
        "bedrock",
        [{"messageStart": {"role": "assistant"}}, {"throttlingException": {"message": "Too many requests"}}],
        None,
        finish=(),
        outcome="error",
        error="rate_limit",
        first_token=False,
        missing="error",
    ),
]
