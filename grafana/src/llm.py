"""LLM: what the language models cost, how fast they answer, and what goes wrong, by provider and model."""

from __future__ import annotations

from .common import (
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    MODEL,
    PROVIDER,
    TOKEN_COLOURS,
    average_and_percentiles,
    dashboard,
    only,
    red_at,
)
from .model import Link, Panel, Query, Row
from .panels import PER_MINUTE, Column, coloured, full, heatmap, quarters, stat, table, thirds, timeseries
from .promql import happened, heat, mean, or_zero, quantile, ratio

DURATION = "llm_request_duration_seconds"
FIRST_TOKEN = "llm_time_to_first_token_seconds"  # noqa: S105  a metric's name
PER_TOKEN = "llm_time_per_output_token_seconds"  # noqa: S105
PROMPT = "llm_prompt_length_characters"
CALLS = "rate(llm_requests_total{@llm}[@rate])"
FAILED = 'rate(llm_requests_total{@llm, outcome="error"}[@rate])'
# How long a failed call took says nothing about how fast a model answers: failing fast would look like an improvement.
ANSWERED = '@llm, outcome="success"'
NAME = "{{model}}"  # unique within a provider; the table has both
VARIABLES = (JOB, INSTANCE, PROVIDER, MODEL)
ONE_MODEL = only("Only ${__field.labels.model}", "LLM", VARIABLES, MODEL, "__field.labels.model")
OUTCOME_COLOURS = {"success": "green", "error": "red", "incomplete": "orange", "cancelled": "text"}


def model_p95(matchers: str, *links: Link) -> Panel:
    return stat(
        "Model p95",
        "95 of 100 calls of a language model that succeed are complete within this time.",
        Query(quantile(0.95, DURATION, matchers=f'{matchers}, outcome="success"')),
        unit="s",
        steps=red_at("llm_response_seconds", 0.5),
        no_value="idle",
        links=links,
    )


STRIP = tuple(
    panel.sized(3)
    for panel in (
        stat(
            "Calls",
            "Calls of language models that ended per minute, all outcomes.",
            Query(or_zero(f"60 * sum({CALLS})")),
            unit=PER_MINUTE,
            decimals=1,
        ),
        stat(
            "Failed calls",
            "Share of calls that ended with an error, after all retries.",
            Query(ratio(FAILED, CALLS)),
            unit="percentunit",
            decimals=1,
            steps=red_at("llm_error_ratio", 0.1),
        ),
        model_p95("@llm"),
        stat(
            "First token p95",
            "95 of 100 streamed answers begin within this time: what people wait for.",
            Query(quantile(0.95, FIRST_TOKEN, matchers="@llm")),
            unit="s",
            steps=red_at("llm_first_token_seconds", 0.4),
            no_value="idle",
        ),
        stat(
            "Tokens in",
            "Tokens sent to the models per minute, those read from a provider's cache included.",
            Query(or_zero('60 * sum(rate(llm_tokens_total{@llm, type="input"}[@rate]))')),
            unit=PER_MINUTE,
            colour=TOKEN_COLOURS["input"],
        ),
        stat(
            "Tokens out",
            "Tokens that the models wrote per minute, reasoning included.",
            Query(or_zero('60 * sum(rate(llm_tokens_total{@llm, type="output"}[@rate]))')),
            unit=PER_MINUTE,
            colour=TOKEN_COLOURS["output"],
        ),
        stat(
            "Cost per hour",
            "What tokens cost at the present pace, by the price table of the service.",
            Query(or_zero("3600 * sum(rate(llm_cost_usd_total{@llm}[@rate]))")),
            unit="currencyUSD",
            decimals=2,
        ),
        stat(
            "In progress",
            "Calls that wait for a model at this moment.",
            Query(or_zero("sum(llm_requests_in_progress{@llm})")),
            unit="none",
        ),
    )
)

TOKENS = (
    timeseries(
        "Tokens by direction",
        "Tokens per second sent to the models (input) and written by them (output).",
        Query("sum by (type) (rate(llm_tokens_total{@llm}[@rate]))", "{{type}}"),
        unit="count:tokens/s",
        stacked=True,
        overrides=coloured(TOKEN_COLOURS),
    ),
    timeseries(
        "Tokens by model",
        "Tokens per second, input and output together.",
        Query("sum by (provider, model) (rate(llm_tokens_total{@llm}[@rate]))", NAME),
        unit="count:tokens/s",
        stacked=True,
        links=(ONE_MODEL,),
    ),
    timeseries(
        "Cost by model",
        "US dollars per hour at the present pace. Models without a price are missing: see unpriced calls below.",
        Query("3600 * sum by (provider, model) (rate(llm_cost_usd_total{@llm}[@rate]))", NAME),
        unit="currencyUSD",
        decimals=2,
        stacked=True,
        links=(ONE_MODEL,),
    ),
)

BY = ("provider", "model")
MODELS = (
    table(
        "Models",
        "Every model: the pace at the end of the time range, and cost and tokens over the whole of it. Times are those "
        "of calls that succeeded.",
        (
            Query(f"60 * sum by (provider, model) ({CALLS})", instant=True, format="table"),
            Query(ratio(FAILED, CALLS, *BY), instant=True, format="table"),
            Query(mean(DURATION, *BY, matchers=ANSWERED), instant=True, format="table"),
            Query(quantile(0.95, DURATION, *BY, matchers=ANSWERED), instant=True, format="table"),
            Query(quantile(0.95, FIRST_TOKEN, *BY, matchers="@llm"), instant=True, format="table"),
            Query(
                'sum by (provider, model) (increase(llm_tokens_total{@llm, type="input"}[$__range]))',
                instant=True,
                format="table",
            ),
            Query(
                'sum by (provider, model) (increase(llm_tokens_total{@llm, type="output"}[$__range]))',
                instant=True,
                format="table",
            ),
            Query(
                "sum by (provider, model) (increase(llm_cost_usd_total{@llm}[$__range]))", instant=True, format="table"
            ),
        ),
        unit="short",
        columns=(
            Column("provider", "Provider", width=150),
            Column(
                "model",
                "Model",
                links=(only("Only this model", "LLM", VARIABLES, MODEL, "__value.text"),),
            ),
            Column("Value #A", "Calls per minute", unit="short", width=190, bar=True, decimals=1),
            Column(
                "Value #B",
                "Failed",
                unit="percentunit",
                width=150,
                steps=red_at("llm_error_ratio", 0.1),
                decimals=1,
            ),
            Column("Value #C", "Average", unit="s", width=150),
            Column(
                "Value #D",
                "p95",
                unit="s",
                width=150,
                steps=red_at("llm_response_seconds", 0.5),
            ),
            Column(
                "Value #E",
                "First token p95",
                unit="s",
                width=150,
                steps=red_at("llm_first_token_seconds", 0.4),
            ),
            Column("Value #F", "Input tokens", unit="short", width=150),
            Column("Value #G", "Output tokens", unit="short", width=150),
            Column("Value #H", "Cost", unit="currencyUSD", width=150, decimals=2),
        ),
        sort_by=(("Calls per minute", True),),
    ),
)

RESPONSE = (
    timeseries(
        "Model response time",
        "From the request to the end of the answer, retries included, of calls that succeeded.",
        average_and_percentiles(DURATION, matchers=ANSWERED),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        legend="names",
        no_value="No calls in this range",
    ),
    heatmap(
        "Response time spread",
        "Successful calls per second in each bucket of response time.",
        heat(DURATION, ANSWERED),
        unit="s",
    ),
    timeseries(
        "Response time p95 by model",
        "95 of 100 calls of the model that succeed are complete within this time.",
        Query(quantile(0.95, DURATION, *BY, matchers=ANSWERED), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value="No calls in this range",
    ),
)

STREAMING = (
    timeseries(
        "Time to first token p95",
        "Streamed answers only: how long people look at nothing.",
        Query(quantile(0.95, FIRST_TOKEN, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value="Nothing streamed in this range",
    ),
    heatmap(
        "Time to first token spread",
        "Streamed answers per second in each bucket of the time to the first token.",
        heat(FIRST_TOKEN, "@llm"),
        unit="s",
    ),
    timeseries(
        "Time per output token",
        "Average time between tokens after the first. Below 0.1 s the answer comes faster than people read.",
        Query(mean(PER_TOKEN, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value="Nothing streamed in this range",
    ),
)

PROMPTS = (
    timeseries(
        "Prompt length, average",
        "Average number of characters in the users' prompts.",
        Query(mean(PROMPT, *BY, matchers="@llm"), NAME),
        unit="short",
        links=(ONE_MODEL,),
        no_value="No prompts in this range",
    ),
    timeseries(
        "Prompt length, maximum",
        "The longest prompt of the last minute, in characters. Nothing is missed between two scrapes.",
        Query("max by (provider, model) (llm_prompt_length_characters_max{@llm})", NAME),
        unit="short",
        links=(ONE_MODEL,),
    ),
    heatmap(
        "Prompt length spread",
        "Prompts per second in each bucket of length.",
        heat(PROMPT, "@llm"),
        unit="short",
    ),
)

RELIABILITY = (
    timeseries(
        "Calls by outcome",
        "Calls per minute. Cancelled: the reader left. Incomplete: the answer broke off without a reason.",
        Query(happened("llm_requests_total", "outcome", matchers="@llm"), "{{outcome}}"),
        unit=PER_MINUTE,
        stacked=True,
        overrides=coloured(OUTCOME_COLOURS),
        legend="names",
    ),
    timeseries(
        "Failed calls by model",
        "Share of calls that ended with an error. Above the line for five minutes, an alert fires.",
        Query(ratio(FAILED, CALLS, *BY), NAME),
        unit="percentunit",
        limit=0.1,
        links=(ONE_MODEL,),
        legend="names",
    ),
    timeseries(
        "Errors by kind",
        "Failed calls per minute by kind of error.",
        Query(happened("llm_errors_total", "error_type", matchers="@llm"), "{{error_type}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="names",
    ),
    timeseries(
        "Retries",
        "Attempts per minute that were repeated, most of them silently by the provider's client, by cause.",
        Query(happened("llm_retries_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
        legend="names",
    ),
    timeseries(
        "Finish reasons",
        "Why answers ended, per minute. `length` means that they were cut off.",
        Query(happened("llm_finish_reasons_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
        legend="names",
        overrides=coloured(
            {"stop": "green", "length": "orange", "tool_calls": "blue", "content_filter": "red", "other": "text"}
        ),
    ),
    timeseries(
        "Calls in progress",
        "Calls that wait for a model. A steady climb means that they no longer return.",
        Query("sum by (provider, model) (llm_requests_in_progress{@llm})", NAME),
        unit="none",
        stacked=True,
        links=(ONE_MODEL,),
        legend="names",
    ),
)

ACCOUNTING = (
    timeseries(
        "Rate limit left",
        "Requests and tokens that the provider still allows in its window, as of its last response. Providers that say "
        "nothing about it have no line.",
        Query("min by (provider, model, resource) (llm_rate_limit_remaining{@llm})", "{{model}} {{resource}}"),
        unit="short",
        log=True,
        no_value="No provider reports a limit",
        legend="names",
    ),
    timeseries(
        "Tokens per call",
        "Average number of tokens in a call, by direction.",
        Query(mean("llm_request_tokens", "type", matchers="@llm"), "{{type}}"),
        unit="short",
        overrides=coloured(TOKEN_COLOURS),
        no_value="No calls in this range",
        legend="names",
    ),
    timeseries(
        "Missing usage and prices",
        "Share of calls whose tokens are unknown (readers who leave a stream leave before the provider tells them), "
        "and of those with known tokens but without a price. The panels for tokens and cost lack them.",
        (
            Query(ratio("rate(llm_usage_missing_total{@llm}[@rate])", CALLS), "usage missing"),
            Query(ratio("rate(llm_unpriced_requests_total{@llm}[@rate])", CALLS), "without a price"),
        ),
        unit="percentunit",
        legend="names",
    ),
    timeseries(
        "Cache and reasoning",
        "Share of input tokens read from the provider's cache, and of output tokens spent on reasoning.",
        (
            Query(
                ratio(
                    'rate(llm_token_details_total{@llm, detail="input_cache_read"}[@rate])',
                    'rate(llm_tokens_total{@llm, type="input"}[@rate])',
                ),
                "input from cache",
            ),
            Query(
                ratio(
                    'rate(llm_token_details_total{@llm, detail="output_reasoning"}[@rate])',
                    'rate(llm_tokens_total{@llm, type="output"}[@rate])',
                ),
                "output for reasoning",
            ),
        ),
        unit="percentunit",
        overrides=coloured({"input from cache": "blue", "output for reasoning": "purple"}),
        legend="names",
    ),
)

DASHBOARD = dashboard(
    "LLM",
    "Tokens, cost and speed of language models, and what goes wrong, by provider and model.",
    variables=VARIABLES,
    rows=(
        Row("", STRIP),
        Row("Tokens and cost", thirds(TOKENS)),
        Row("Models", full(MODELS, 5)),
        Row("Response time", thirds(RESPONSE)),
        Row("Streaming", thirds(STREAMING)),
        Row("Prompts", thirds(PROMPTS)),
        Row("Reliability", thirds(RELIABILITY, 7)),
        Row("Limits and accounting", quarters(ACCOUNTING, 7)),
    ),
)
