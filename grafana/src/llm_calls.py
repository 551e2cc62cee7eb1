"""LLM, the details: response time, streaming, errors, spend, lengths, calls without usage or price."""

from __future__ import annotations

from prometheus.src import recorded

from . import slo
from .common import INSTANCE, JOB, LATENCY_COLOURS, MODEL, PROVIDER, TOKEN_COLOURS, only
from .common_panels import average_and_percentiles, percentile_lines
from .looks import PER_MINUTE, coloured
from .model import Query
from .panels import heatmap, timeseries
from .promql import LLM_FAILED, happened, heat, mean, percentile, ratio

# The duration of failed calls does not show how fast a model is: the recorded series has successful calls only.
DURATION = recorded.CALL
CALLS = recorded.CALLS.of("@llm")
FAILED = recorded.CALLS.of(f"@llm, {LLM_FAILED}")
NAME = "{{model}}"  # unique within a provider; the table has both
BUDGET = 24 * slo.threshold("llm_cost_usd_per_hour")  # US dollars a day: at the hourly cost at which an alert fires
VARIABLES = (JOB, INSTANCE, PROVIDER, MODEL)
ONE_MODEL = only("Only ${__field.labels.model}", "LLM", VARIABLES, MODEL, "__field.labels.model")
OUTCOME_COLOURS = {"success": "green", "error": "red", "incomplete": "orange", "cancelled": "text"}
BY = ("provider", "model")
NOTHING_STREAMED = "Nothing streamed in this range"

RESPONSE = (
    timeseries(
        "Model response time",
        "From the request to the end of the answer, retries included, of calls that succeeded.",
        average_and_percentiles(DURATION, 0.5, 0.9, 0.95, 0.99, matchers="@llm"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value="No successful calls in this range",
    ),
    heatmap(
        "Response time distribution",
        "Successful calls per second in each bucket of response time.",
        heat(DURATION, "@llm"),
        unit="s",
    ),
    timeseries(
        "Response time p95 by model",
        "95 of 100 calls of the model that succeed are complete within this time.",
        Query(percentile(0.95, DURATION, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value="No successful calls in this range",
    ),
)

STREAMING = (
    timeseries(
        "Time to first token",
        "Streamed answers only: how long a user waits for the answer to begin.",
        percentile_lines(recorded.TTFT, 0.5, 0.9, 0.95, 0.99, matchers="@llm"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value=NOTHING_STREAMED,
    ),
    timeseries(
        "TTFT p95 by model",
        "95 of 100 streamed answers of the model begin within this time.",
        Query(percentile(0.95, recorded.TTFT, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value=NOTHING_STREAMED,
    ),
    timeseries(
        "Time per token (TPOT)",
        "Time between tokens after the first. Below 0.1 s an answer arrives faster than it can be read.",
        percentile_lines(recorded.TPOT, 0.5, 0.9, 0.95, 0.99, matchers="@llm"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value=NOTHING_STREAMED,
    ),
    timeseries(
        "TPOT by model",
        "Average time between tokens after the first, by model.",
        Query(mean(recorded.TPOT, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value=NOTHING_STREAMED,
    ),
)

LENGTHS = (
    timeseries(
        "Mean prompt length",
        "Average number of characters in the users' prompts.",
        Query(mean(recorded.PROMPT, *BY, matchers="@llm"), NAME),
        unit="short",
        links=(ONE_MODEL,),
        no_value="No prompts in this range",
    ),
    timeseries(
        "Longest prompt",
        "The longest prompt of the last minute, in characters, including those between two scrapes.",
        Query(f"max by (provider, model) ({recorded.LONGEST_PROMPT.of('@llm')})", NAME),
        unit="short",
        links=(ONE_MODEL,),
    ),
    heatmap(
        "Prompt lengths",
        "Prompts per second in each bucket of length.",
        heat(recorded.PROMPT, "@llm"),
        unit="short",
    ),
    timeseries(
        "Output length",
        "Tokens that the models wrote in a call: average and percentiles.",
        average_and_percentiles(recorded.TOKENS_PER_CALL, 0.5, 0.95, matchers='@llm, type="output"'),
        unit="short",
        overrides=coloured(LATENCY_COLOURS),
        no_value="No calls in this range",
    ),
)

RELIABILITY = (
    timeseries(
        "Calls by outcome",
        "Calls per minute. Cancelled: the client disconnected. Incomplete: the answer ended without a finish reason.",
        Query(happened(recorded.CALLS, "llm_requests_total", "outcome", matchers="@llm"), "{{outcome}}"),
        unit=PER_MINUTE,
        stacked=True,
        overrides=coloured(OUTCOME_COLOURS),
    ),
    timeseries(
        "Failed calls by model",
        "Share of calls that ended with an error, or in the middle of the answer. Where errors stay above the line, an "
        "alert fires.",
        Query(ratio(FAILED, CALLS, *BY), NAME),
        unit="percentunit",
        limit=slo.threshold("llm_error_ratio"),
        links=(ONE_MODEL,),
    ),
    timeseries(
        "Errors by kind",
        "Failed calls per minute by kind of error.",
        Query(happened(recorded.LLM_ERRORS, "llm_errors_total", "error_type", matchers="@llm"), "{{error_type}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
    ),
    timeseries(
        "Retries",
        "Attempts per minute that were repeated, most of them silently by the provider's client, by cause.",
        Query(happened(recorded.RETRIES, "llm_retries_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
    ),
    timeseries(
        "Finish reasons",
        "Why answers ended, per minute. `length` means that they were cut off.",
        Query(happened(recorded.FINISH_REASONS, "llm_finish_reasons_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
        overrides=coloured(
            {"stop": "green", "length": "orange", "tool_calls": "blue", "content_filter": "red", "other": "text"}
        ),
    ),
    timeseries(
        "Calls in progress",
        "Calls that wait for a model. A steady increase means that they no longer complete.",
        Query(f"sum by (provider, model) ({recorded.CALLS_IN_PROGRESS.of('@llm')})", NAME),
        unit="none",
        stacked=True,
        links=(ONE_MODEL,),
    ),
)

ACCOUNTING = (
    timeseries(
        "Rate limit remaining",
        "Requests and tokens that the provider still allows in its window, as of its last response. Providers that "
        "do not report them have no line.",
        Query("min by (provider, model, resource) (llm_rate_limit_remaining{@llm})", "{{model}} {{resource}}"),
        unit="short",
        log=True,
        no_value="No provider reports a limit",
    ),
    timeseries(
        "Tokens per call",
        "Average number of tokens in a call, by direction.",
        Query(mean(recorded.TOKENS_PER_CALL, "type", matchers="@llm"), "{{type}}"),
        unit="short",
        overrides=coloured(TOKEN_COLOURS),
        no_value="No calls in this range",
    ),
    timeseries(
        "Usage missing",
        "Calls per minute whose tokens are unknown. Cancelled and failed calls never have usage.",
        Query(happened(recorded.USAGE_MISSING, "llm_usage_missing_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
    ),
    timeseries(
        "Cache and reasoning",
        "Share of input tokens read from the provider's cache, and of output tokens spent on reasoning.",
        tuple(
            Query(
                ratio(
                    recorded.TOKEN_DETAILS.of(f'@llm, detail="{detail}"'),
                    recorded.TOKENS.of(f'@llm, type="{direction}"'),
                ),
                name,
            )
            for detail, direction, name in (
                ("input_cache_read", "input", "input from cache"),
                ("output_reasoning", "output", "output for reasoning"),
            )
        ),
        unit="percentunit",
        overrides=coloured({"input from cache": "blue", "output for reasoning": "purple"}),
    ),
)
