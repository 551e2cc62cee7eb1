# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of LLM calls, for any provider, streamed or not.

Depends only on prometheus_client and can be copied alone: responses of the OpenAI and Anthropic SDKs (and of every
server with the same protocols) are recognized by their fields, as objects or dicts, without importing an SDK.

    configure(models={"openai": ["gpt-5-mini"]}, prices="prices.toml")

    with track_call("openai", "gpt-5-mini", prompt=question) as call:
        response = call.record(client.chat.completions.create(model="gpt-5-mini", messages=messages))

    async with track_call("openai", "gpt-5-mini", prompt=question) as call:
        stream = await client.chat.completions.create(model="gpt-5-mini", messages=messages, stream=True,
                                                      stream_options={"include_usage": True})
        async for chunk in call.stream(stream):
            ...

    client = AsyncOpenAI(http_client=watch_http(DefaultAsyncHttpxClient()))  # also counts the SDK's silent retries

Labels: `provider` and `model` are those given to `configure`, everything else is `other`. Prompts, answers, keys and
users never appear in labels or logs. Times are in seconds, measured with the monotonic clock.
"""

from .abandoned import AbandonedCallsMiddleware
from .call import Call, track_call
from .config import MAX_CALL_TOKENS, configure
from .errors import error_type
from .http_client import watch_http
from .metrics import (
    ERROR_TYPES,
    FINISH_REASONS,
    OPERATIONS,
    OTHER,
    OUTCOMES,
    TOKEN_DETAILS,
    USAGE_MISSING_REASONS,
)
from .misuse import NotAnAnswerError
from .prices import Price, Usage, read_prices
from .prompt import prompt_length
from .readers import read_usage
from .tokens import track_tokens

__all__ = [
    "ERROR_TYPES",
    "FINISH_REASONS",
    "MAX_CALL_TOKENS",
    "OPERATIONS",
    "OTHER",
    "OUTCOMES",
    "TOKEN_DETAILS",
    "USAGE_MISSING_REASONS",
    "AbandonedCallsMiddleware",
    "Call",
    "NotAnAnswerError",
    "Price",
    "Usage",
    "configure",
    "error_type",
    "prompt_length",
    "read_prices",
    "read_usage",
    "track_call",
    "track_tokens",
    "watch_http",
]
