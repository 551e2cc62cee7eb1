"""Chat completions: streams that differ from the usual one, and errors inside of them."""

from __future__ import annotations

from app.telemetry.llm import Usage
from tests.telemetry.llm.shapes.chat import HELLO, TRUTH, USAGE, chunk, openai_usage, usage_chunk
from tests.telemetry.llm.shapes.shape import Shape

STREAMS = [
    # 1: an empty value is none
    Shape(
        "SGLang and Ollama, an empty finish reason in every chunk",
        "chat",
        [chunk("a", ""), chunk("b", ""), chunk(None, "stop"), usage_chunk(**USAGE)],
        TRUTH,
    ),
    Shape(
        "an empty finish reason to the end",
        "chat",
        [chunk("a", ""), chunk("b", "")],
        None,
        finish=(),
        outcome="incomplete",
        missing="not_returned",
    ),
    Shape(
        "Mistral by LiteLLM, empty usage in every chunk",
        "chat",
        [chunk("a", usage={}), chunk("b", usage={}), chunk(None, "stop", USAGE), chunk(usage={}, choices=[])],
        TRUTH,
    ),
    # 2: once per choice
    Shape("the same reason twice", "chat", [*HELLO, chunk(None, "stop"), chunk("", "stop", USAGE)], TRUTH),
    Shape(
        "two choices",
        "chat",
        [
            chunk("a"),
            chunk("b", choice_index=1),
            chunk(None, "length", choice_index=1),
            chunk(None, "stop"),
            usage_chunk(**USAGE),
        ],
        TRUTH,
        finish=("length", "stop"),
    ),
    Shape(
        "two choices, of which one is cut off",
        "chat",
        [chunk("a"), chunk("b", choice_index=1), chunk(None, "stop")],
        None,
        outcome="incomplete",
        missing="not_returned",
    ),
    # 4: usage elsewhere
    Shape("Moonshot, usage in the choice", "chat", [*HELLO, chunk(None, "stop", choice_usage=USAGE)], TRUTH),
    Shape(
        "Groq",
        "chat",
        [*HELLO, chunk(None, "stop", x_groq={"id": "req_1", "usage": USAGE | {"queue_time": 0.01}})],
        TRUTH,
    ),
    Shape(
        "Bedrock, invocation metrics",
        "chat",
        [
            *HELLO,
            chunk(None, "stop") | {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 5}},
        ],
        TRUTH,
    ),
    Shape(
        "Gemini's own block, camel case",
        "chat",
        [
            *HELLO,
            chunk(
                None,
                None,
                choice_finishReason="stop",
                usageMetadata={
                    "promptTokenCount": 12,
                    "candidatesTokenCount": 2,
                    "thoughtsTokenCount": 3,
                    "totalTokenCount": 17,
                },
            ),
        ],
        Usage(12, 5, reasoning=3),
    ),
    Shape("llama-cpp-python, usage with the finish reason", "chat", [*HELLO, chunk(None, "stop", USAGE)], TRUTH),
    Shape("usage before the last content", "chat", [chunk("a", usage=USAGE), chunk("b"), chunk(None, "stop")], TRUTH),
    Shape(
        "vLLM and Perplexity, running totals",
        "chat",
        [
            chunk("", usage=openai_usage(12, 0)),
            *(chunk("x", usage=openai_usage(12, made)) for made in (1, 2, 3, 4)),
            chunk("x", "stop", openai_usage(12, 5)),
            usage_chunk(**USAGE),
        ],
        TRUTH,
    ),
    Shape(
        "one report for each step of the provider's own tools",
        "chat",
        [
            chunk("a", usage=openai_usage(100, 50), answer_id="step-1"),
            chunk("b", "stop", usage=openai_usage(200, 30), answer_id="step-2"),
        ],
        Usage(300, 80),
    ),
    Shape(
        "erased by a trailing empty one",
        "chat",
        [*HELLO, chunk(None, "stop", USAGE), usage_chunk(**openai_usage(0, 0))],
        TRUTH,
    ),
    Shape(
        "not asked for",
        "chat",
        [{name: value for name, value in each.items() if name != "usage"} for each in (*HELLO, chunk(None, "stop"))],
        None,
        missing="not_requested",
    ),
    # 5: errors inside answers
    Shape(
        "OpenRouter, an error on the way",
        "chat",
        [*HELLO, chunk("", "error", error={"code": 502, "message": "Provider disconnected"}, provider="x")],
        None,
        finish=("other",),
        outcome="error",
        error="server",
        missing="error",
    ),
    Shape(
        "OpenRouter, an error in the choice",
        "chat",
        [*HELLO, chunk("", "error", USAGE, choice_error={"code": 429, "message": "Slow down"})],
        TRUTH,
        finish=("other",),
        outcome="error",
        error="rate_limit",
    ),
    Shape(
        "LiteLLM proxy, a code in a string",
        "chat",
        [*HELLO, {"error": {"message": "no", "type": "None", "param": "None", "code": "429"}}],
        None,
        finish=(),
        outcome="error",
        error="rate_limit",
        missing="error",
    ),
    Shape(
        "SGLang, too many tokens",
        "chat",
        [
            {
                "error": {
                    "object": "error",
                    "message": "Requested token count exceeds the model's maximum context length of 196608 tokens.",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                }
            }
        ],
        None,
        finish=(),
        outcome="error",
        error="context_length",
        first_token=False,
        missing="error",
    ),
    Shape(
        "vLLM, aborted by the engine",
        "chat",
        [*HELLO, chunk("", "abort")],
        None,
        finish=("other",),
        outcome="error",
        error="server",
        missing="error",
    ),
    Shape(
        "DeepSeek, no resources left",
        "chat",
        [*HELLO, chunk("", "insufficient_system_resource", USAGE)],
        TRUTH,
        finish=("other",),
        outcome="error",
        error="overloaded",
    ),
    Shape(
        "MiniMax, an error beside empty choices",
        "chat",
        [chunk(choices=None, base_resp={"status_code": 1002, "status_msg": "rate limit"})],
        None,
        finish=(),
        outcome="error",
        error="rate_limit",
        first_token=False,
        missing="error",
    ),
    # 8: a first event that says nothing
    Shape(
        "Azure, filter results first and last",
        "chat",
        [
            chunk(choices=[], answer_id="", prompt_filter_results=[{"prompt_index": 0}]),
            *HELLO,
            chunk(None, "stop"),
            usage_chunk(**USAGE),
            chunk(answer_id="", choices=[{"index": 0, "finish_reason": None, "content_filter_results": {}}]),
        ],
        TRUTH,
    ),
    Shape("choices are null first", "chat", [chunk(choices=None), *HELLO, chunk(None, "stop", USAGE)], TRUTH),
    Shape("a ping first", "chat", [{"type": "ping"}, *HELLO, chunk(None, "stop", USAGE)], TRUTH),
    Shape(
        "reasoning and tools",
        "chat",
        [
            chunk(delta_reasoning_content="Hmm"),
            chunk(
                delta_tool_calls=[
                    {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ]
            ),
            chunk(None, "tool_calls", USAGE),
        ],
        TRUTH,
        finish=("tool_calls",),
    ),
]
