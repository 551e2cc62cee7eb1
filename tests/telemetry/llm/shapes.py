"""What providers and gateways really send, and the truth about it. Sources: docs/llm-providers.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.telemetry.llm import Usage

Body = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """Events of a stream, the same answer whole, and what they are."""

    name: str
    protocol: str
    events: Sequence[Any]
    usage: Usage | None
    finish: tuple[str, ...] = ("stop",)
    outcome: str = "success"
    error: str | None = None
    first_token: bool = True
    missing: str | None = None
    whole: Any = None


def chunk(
    content: str | None = None,
    finish: Any = None,
    usage: Any = None,
    *,
    answer_id: str = "1",
    choices: Any = ...,
    **more: Any,
) -> Body:
    """A chunk of chat completions. `choice_...` goes into the choice, `delta_...` into the delta."""
    delta: Body = {} if content is None else {"content": content}
    delta |= {name.removeprefix("delta_"): more.pop(name) for name in list(more) if name.startswith("delta_")}
    choice: Body = {"index": 0, "delta": delta, "finish_reason": finish}
    choice |= {name.removeprefix("choice_"): more.pop(name) for name in list(more) if name.startswith("choice_")}
    common = {"id": answer_id, "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return common | {"choices": [choice] if choices is ... else choices, "usage": usage} | more


def usage_chunk(**usage: Any) -> Body:
    return chunk(usage=usage, choices=[])


def chat(name: str, usage: Any, truth: Usage | None, *, finish: str = "stop", **more: Any) -> Shape:
    """The usual stream of chat completions with the usage in a last chunk of its own, and the same whole."""
    events = [
        chunk("", delta_role="assistant"),
        chunk("Hello"),
        chunk(" you"),
        chunk(None, finish),
        chunk(usage=usage, choices=[]),
    ]
    return Shape(name, "chat", events, truth, whole=completion(usage, finish), **more)


def completion(usage: Any, finish: Any = "stop", **more: Any) -> Body:
    message = {"role": "assistant", "content": "Hello you"}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return body | ({} if usage is None else {"usage": usage}) | more


def openai_usage(given: int, made: int, total: int | None = None, **more: Any) -> Body:
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": total or given + made} | more


HELLO = [chunk("", delta_role="assistant"), chunk("Hello"), chunk(" you")]
USAGE = openai_usage(12, 5)
TRUTH = Usage(12, 5)

CHAT = [
    chat("OpenAI", USAGE, TRUTH),
    chat(
        "OpenAI, cached input and reasoning inside",
        openai_usage(
            120,
            30,
            prompt_tokens_details={"cached_tokens": 100},
            completion_tokens_details={"reasoning_tokens": 10},
        ),
        Usage(120, 30, cache_read=100, reasoning=10),
    ),
    # 3: reasoning beside the output, as the total shows
    chat(
        "xAI, reasoning beside",
        openai_usage(12, 1, 399, completion_tokens_details={"reasoning_tokens": 386}),
        Usage(12, 387, reasoning=386),
    ),
    chat(
        "xAI, reasoning beside and smaller, cached input inside",
        openai_usage(
            10120,
            3499,
            16428,
            prompt_tokens_details={"cached_tokens": 128},
            completion_tokens_details={"reasoning_tokens": 2809},
        ),
        Usage(10120, 6308, cache_read=128, reasoning=2809),
    ),
    chat("Gemini, thoughts only in the total", openai_usage(20, 198, 623), Usage(20, 603)),
    chat(
        "Gemini by a proxy, all output is reasoning",
        openai_usage(21, 0, 81, completion_tokens_details={"reasoning_tokens": 60}),
        Usage(21, 60, reasoning=60),
    ),
    chat(
        "Perplexity, reasoning larger than the output and outside of the total",
        openai_usage(108, 3256, 3364, citation_tokens=7299, reasoning_tokens=73248),
        Usage(108, 76504, reasoning=73248),
    ),
    # 7: cached input under other names
    chat(
        "DeepSeek",
        openai_usage(100, 50, prompt_cache_hit_tokens=80, prompt_cache_miss_tokens=20),
        Usage(100, 50, cache_read=80),
    ),
    chat("Moonshot", openai_usage(100, 50, cached_tokens=80), Usage(100, 50, cache_read=80)),
    chat(
        "LiteLLM in front of Anthropic",
        openai_usage(
            140,
            30,
            cache_creation_input_tokens=40,
            cache_read_input_tokens=80,
            prompt_tokens_details={
                "cached_tokens": 80,
                "cache_creation_tokens": 40,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
            },
        ),
        Usage(140, 30, cache_read=80, cache_write=40, cache_write_1h=10),
    ),
    chat(
        "a gateway that leaves cached input out of the prompt",
        openai_usage(20, 30, 170, cache_creation_input_tokens=40, cache_read_input_tokens=80),
        Usage(140, 30, cache_read=80, cache_write=40),
    ),
    chat(
        "OpenRouter",
        openai_usage(
            194,
            12,
            cost=0.0002,
            is_byok=False,
            prompt_tokens_details={"cached_tokens": 100, "cache_write_tokens": 50, "audio_tokens": 0},
            cost_details={"upstream_inference_cost": None},
            completion_tokens_details={"reasoning_tokens": 4},
        ),
        Usage(194, 12, cache_read=100, cache_write=50, reasoning=4),
    ),
    chat(
        "Alibaba Cloud, explicit cache",
        openai_usage(
            1300,
            30,
            prompt_tokens_details={
                "cached_tokens": 0,
                "cache_creation_input_tokens": 1200,
                "cache_creation": {"ephemeral_5m_input_tokens": 1200},
                "cache_type": "ephemeral",
            },
        ),
        Usage(1300, 30, cache_write=1200),
    ),
    chat("Mistral", openai_usage(100, 9, num_cached_tokens=64, prompt_audio_seconds={}), Usage(100, 9, cache_read=64)),
    chat(
        "new-api, both protocols' names",
        openai_usage(100, 20, input_tokens=0, output_tokens=0, input_tokens_details=None),
        Usage(100, 20),
    ),
    # 11: numbers
    chat("floats", {"prompt_tokens": 12.0, "completion_tokens": 5.0, "total_tokens": 17.0}, TRUTH),
    chat("numeric strings", {"prompt_tokens": "12", "completion_tokens": "5", "total_tokens": "17"}, TRUTH),
    chat(
        "an unreadable number that follows from the others", openai_usage(12, 5) | {"completion_tokens": "NaN"}, TRUTH
    ),
    chat("a negative number", {"prompt_tokens": 12, "completion_tokens": -5}, Usage(12, 0), missing="unreadable"),
    chat("NaN", {"prompt_tokens": float("nan"), "completion_tokens": 5}, Usage(0, 5), missing="unreadable"),
    chat("an implausible number", openai_usage(10**12, 5), Usage(0, 5), missing="unreadable"),
    chat("a fraction", {"prompt_tokens": 12.5, "completion_tokens": 5}, Usage(0, 5), missing="unreadable"),
    chat(
        "an unreadable part",
        openai_usage(12, 5, prompt_tokens_details={"cached_tokens": "many"}),
        TRUTH,
        missing="unreadable",
    ),
    chat("a total that contradicts", openai_usage(12, 5, 9), TRUTH, missing="unreadable"),
    chat("the total alone", {"total_tokens": 17}, None, missing="unreadable"),
    chat("all zeros although there is content", openai_usage(0, 0), None, missing="not_returned"),
    chat("no output although there is content", openai_usage(12, 0), Usage(12, 0), missing="not_returned"),
    # 1: an empty value is none
    chat("empty usage", {}, None, missing="not_returned"),
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


def messages(
    name: str,
    start: Any,
    end: Any,
    truth: Usage | None,
    *,
    kind: str = "text_delta",
    stop: Any = "end_turn",
    **more: Any,
) -> Shape:
    message: Body = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_sequence": None,
    }
    text = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
    events: list[Body] = [
        {"type": "message_start", "message": message | {"stop_reason": None, "usage": start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": kind, text: "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": end},
        {"type": "message_stop"},
    ]
    return Shape(name, "anthropic", events, truth, **more)


CACHED = {"cache_read_input_tokens": 80, "cache_creation_input_tokens": 40}
ANTHROPIC = [
    messages("Anthropic", {"input_tokens": 15, "output_tokens": 1}, {"output_tokens": 30}, Usage(15, 30)),
    messages(
        "cached",
        {
            "input_tokens": 20,
            "output_tokens": 1,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
            **CACHED,
        },
        {"output_tokens": 30},
        Usage(140, 30, cache_read=80, cache_write=40, cache_write_1h=10),
    ),
    # 10: parts of one usage
    messages(
        "Envoy's gateway, no input at the end",
        {"input_tokens": 15, "output_tokens": 1},
        {"input_tokens": 0, "output_tokens": 30, "cache_read_input_tokens": 0},
        Usage(15, 30),
    ),
    messages(
        "Vercel's gateway, zeros at the start",
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": 15, "output_tokens": 30},
        Usage(15, 30),
    ),
    messages(
        "searches on the server: the input grows",
        {"input_tokens": 15, "output_tokens": 1},
        {"input_tokens": 9015, "output_tokens": 30},
        Usage(9015, 30),
    ),
    messages(
        "compaction, outside of the top-level numbers",
        {"input_tokens": 15, "output_tokens": 1},
        {
            "input_tokens": 15,
            "output_tokens": 30,
            "iterations": [
                {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500, "cache_read_input_tokens": 0},
                {"type": "message", "input_tokens": 15, "output_tokens": 30, "cache_read_input_tokens": 0},
            ],
        },
        Usage(180015, 3530),
    ),
    messages(
        "a declined attempt and its fallback",
        {"input_tokens": 15, "output_tokens": 1},
        {
            "input_tokens": 15,
            "output_tokens": 30,
            "iterations": [
                {"type": "message", "input_tokens": 15, "output_tokens": 4},
                {"type": "fallback_message", "model": "other", "input_tokens": 15, "output_tokens": 30},
            ],
        },
        Usage(30, 34),
    ),
    messages(
        "only a guess at the output",
        {"input_tokens": 15, "output_tokens": 1},
        None,
        Usage(15, 1),
        missing="not_returned",
    ),
    messages(
        "thinking",
        {"input_tokens": 15, "output_tokens": 1},
        {"output_tokens": 30, "output_tokens_details": {"thinking_tokens": 12}},
        Usage(15, 30, reasoning=12),
        kind="thinking_delta",
    ),
    messages(
        "a gateway without a stop reason",
        {"input_tokens": 15, "output_tokens": 1},
        {"output_tokens": 30},
        Usage(15, 30),
        stop=None,
        finish=(),
    ),
    Shape(
        "overloaded on the way",
        "anthropic",
        [
            {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 15, "output_tokens": 1}}},
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        Usage(15, 1),
        finish=(),
        outcome="error",
        error="overloaded",
        first_token=False,
        missing="error",
    ),
]
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
EVERY = [*CHAT, *RESPONSES, *ANTHROPIC, *CONVERSE]

# Errors in the place of a whole answer, with HTTP status 200, and their type
ERRORS: list[tuple[Any, str]] = [
    ({"error": {"message": "no", "code": 502}}, "server"),
    ({"error": {"message": "no", "code": "429"}}, "rate_limit"),
    ({"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}, "overloaded"),  # Gemini
    ([{"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}], "rate_limit"),  # Gemini
    ({"error": "Model is overloaded", "error_type": "overloaded"}, "overloaded"),  # text-generation-inference
    ({"error": "`inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "validation"}, "bad_request"),
    ({"error": "model requires more system memory"}, "server"),  # Ollama
    ({"object": "error", "message": "no", "type": "NotFoundError", "code": 404}, "bad_request"),  # vLLM
    ({"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}, "rate_limit"),  # Anthropic
    ({"success": False, "error": {"code": "INTERNAL_SERVER_ERROR", "status": 500}}, "server"),
    ({"error": {"code": 400, "type": "exceed_context_size_error", "message": "no"}}, "context_length"),  # llama.cpp
    ({"error": {"code": 402, "message": "Insufficient credits", "metadata": {}}}, "auth"),  # OpenRouter
    ({"error": {"code": 502, "message": "no", "metadata": {"error_type": "provider_overloaded"}}}, "server"),
    ({"id": "1", "choices": None, "error": {"message": "no", "type": "upstream_error", "code": None}}, "server"),
    ({"id": "1", "choices": [], "base_resp": {"status_code": 1008, "status_msg": "balance"}}, "auth"),  # MiniMax
]
