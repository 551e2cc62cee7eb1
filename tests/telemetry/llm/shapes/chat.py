"""Chat completions: the usual stream with the usage that each provider reports, and the same whole."""

from __future__ import annotations

from typing import Any

from app.telemetry.llm import Usage
from tests.telemetry.llm.shapes.shape import Body, Shape


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

USAGES = [
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
]
