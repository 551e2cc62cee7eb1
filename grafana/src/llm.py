"""LLM: what the language models cost, how fast they answer, and what goes wrong, by provider and model."""

from __future__ import annotations

from prometheus.src import recorded

from . import bounds, slo
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
    percentile_lines,
    service_stat,
)
from .model import Link, Number, Panel, Query, Row
from .panels import (
    PER_MINUTE,
    Column,
    Steps,
    coloured,
    dashed,
    full,
    heatmap,
    quarters,
    sixths,
    table,
    thirds,
    timeseries,
)
from .promql import happened, heat, llm_outcomes, mean, or_failing, or_zero, percentile, ratio

# How long a failed call took says nothing about how fast a model answers: the record has successful calls only.
DURATION = recorded.CALL
CALLS = recorded.CALLS.of("@llm")
FAILED = recorded.CALLS.of('@llm, outcome="error"')
TOKENS_IN = recorded.TOKENS.of('@llm, type="input"')
TOKENS_OUT = recorded.TOKENS.of('@llm, type="output"')
NAME = "{{model}}"  # unique within a provider; the table has both
# Where the alert fires, for a month.
MONTH = f"{24 * 30 * slo.threshold('llm_cost_usd_per_hour'):g}"
BUDGET = Number("budget", "Budget, USD a month", MONTH, "Planned spend per month: the line in the panels of spend")
VARIABLES = (JOB, INSTANCE, PROVIDER, MODEL, BUDGET)
ONE_MODEL = only("Only ${__field.labels.model}", "LLM", VARIABLES, MODEL, "__field.labels.model")
OUTCOME_COLOURS = {"success": "green", "error": "red", "incomplete": "orange", "cancelled": "text"}
BY = ("provider", "model")
NOTHING_STREAMED = "Nothing streamed in this range"


def model_p95(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "Model p95",
        "95 of 100 calls of a language model that succeed are complete within this time, average of 5 minutes.",
        or_failing(percentile(0.95, DURATION, matchers=matchers), *llm_outcomes(matchers)),
        unit="s",
        steps=slo.red_at("llm_response_seconds", 0.5),
        no_value="idle",
        bounds=bounds.CALL,
        links=links,
    )


def failed_calls(matchers: str, *links: Link) -> Panel:
    failed = recorded.CALLS.of(f'{matchers}, outcome="error"')
    return service_stat(
        "LLM errors",
        "Share of calls of language models that ended with an error, after all retries, average of 5 minutes.",
        ratio(failed, recorded.CALLS.of(matchers)),
        unit="percentunit",
        decimals=1,
        steps=slo.red_at("llm_error_ratio", 0.1),
        links=links,
    )


def usage_missing(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "No usage",
        "Share of calls whose tokens and cost are unknown, so that the tiles of tokens and cost are too low by them. A "
        "client that leaves a stream leaves before the provider sends them.",
        ratio(recorded.USAGE_MISSING.of(matchers), recorded.CALLS.of(matchers)),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.1, 0.3),
        links=links,
    )


def spent(window: str, *by: str) -> str:
    """US dollars within the window before, from the recorded rate: every fifth minute of a rate over five minutes."""
    by_label = f" by ({', '.join(by)})" if by else ""
    matchers = 'job=~"$job", provider=~"$provider", model=~"$model"'
    return f"300 * sum{by_label} (sum_over_time({recorded.COST.name}{{{matchers}}}[{window}:5m]))"


STRIP = (
    service_stat(
        "Calls",
        "Calls of language models that ended per minute, all outcomes, average of 5 minutes.",
        or_zero(f"60 * sum({CALLS})"),
        unit=PER_MINUTE,
        decimals=1,
    ),
    failed_calls("@llm"),
    model_p95("@llm"),
    service_stat(
        "TTFT p95",
        "Time to first token: 95 of 100 streamed answers begin within this time.",
        or_failing(percentile(0.95, recorded.TTFT, matchers="@llm"), *llm_outcomes("@llm")),
        unit="s",
        steps=slo.red_at("llm_first_token_seconds", 0.4),
        no_value="idle",
        bounds=bounds.TTFT,
    ),
    service_stat(
        "TPOT p95",
        "Time per output token after the first: 95 of 100 streamed answers come at least this fast. Below 0.1 s an "
        "answer comes faster than it is read.",
        or_failing(percentile(0.95, recorded.TPOT, matchers="@llm"), *llm_outcomes("@llm")),
        unit="s",
        steps=Steps(0.1, 0.25),
        no_value="idle",
        bounds=bounds.TPOT,
    ),
    service_stat(
        "In progress",
        "Calls that wait for a model at this moment.",
        or_zero(f"sum({recorded.CALLS_IN_PROGRESS.of('@llm')})"),
        unit="none",
    ),
    service_stat(
        "Tokens in",
        "Tokens sent to the models per minute, those read from a provider's cache included.",
        or_zero(f"60 * sum({TOKENS_IN})"),
        unit=PER_MINUTE,
        colour=TOKEN_COLOURS["input"],
    ),
    service_stat(
        "Tokens out",
        "Tokens that the models wrote per minute, reasoning included.",
        or_zero(f"60 * sum({TOKENS_OUT})"),
        unit=PER_MINUTE,
        colour=TOKEN_COLOURS["output"],
    ),
    usage_missing("@llm"),
    service_stat(
        "Cost/hour",
        "What tokens cost at the present pace, by the price table of the service.",
        or_zero(f"3600 * sum({recorded.COST.of('@llm')})"),
        unit="currencyUSD",
        decimals=2,
    ),
    service_stat(
        "Cost/call",
        "Average cost of a call, all outcomes, over 5 minutes.",
        f"sum({recorded.COST.of('@llm')}) / (sum({CALLS}) > 0)",
        unit="currencyUSD",
        decimals=4,
        no_value="idle",
    ),
    service_stat(
        "Unpriced",
        "Share of calls whose tokens are known but whose model has no price: their cost is missing.",
        ratio(recorded.UNPRICED.of("@llm"), CALLS),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.01, 0.1),
    ),
)

TOKENS = (
    timeseries(
        "Tokens by direction",
        "Tokens per second sent to the models (input) and written by them (output).",
        Query(f"sum by (type) ({recorded.TOKENS.of('@llm')})", "{{type}}"),
        unit="count:tokens/s",
        stacked=True,
        overrides=coloured(TOKEN_COLOURS),
        legend="names",
    ),
    timeseries(
        "Tokens by model",
        "Tokens per second, input and output together.",
        Query(f"sum by (provider, model) ({recorded.TOKENS.of('@llm')})", NAME),
        unit="count:tokens/s",
        stacked=True,
        links=(ONE_MODEL,),
        legend="names",
    ),
    timeseries(
        "Cost by model",
        "US dollars per hour at the present pace. Models without a price are missing: see unpriced calls above.",
        Query(f"3600 * sum by (provider, model) ({recorded.COST.of('@llm')})", NAME),
        unit="currencyUSD",
        decimals=2,
        stacked=True,
        links=(ONE_MODEL,),
        legend="names",
    ),
)

SPEND = (
    timeseries(
        "Spend of a day",
        "US dollars within the 24 hours before, by model, of all instances. The line is a day's share of the budget, "
        "which is set at the top.",
        (Query(spent("1d", *BY), NAME), Query("vector($budget / 30)", "budget")),
        unit="currencyUSD",
        decimals=2,
        overrides=dashed("budget", colour="red", links=[]),
        links=(ONE_MODEL,),
        legend="names",
    ),
    timeseries(
        "Spend of 30 days",
        "US dollars within the 30 days before, or for as long as Prometheus remembers, of all instances. The line is "
        "the budget of a month, which is set at the top.",
        (Query(spent("30d"), "spend"), Query("vector($budget)", "budget")),
        unit="currencyUSD",
        decimals=2,
        overrides=(*coloured({"spend": "blue"}), *dashed("budget", colour="red")),
        legend="names",
    ),
    timeseries(
        "Cost per call by model",
        "Average cost of a call.",
        Query(
            f"sum by (provider, model) ({recorded.COST.of('@llm')}) / (sum by (provider, model) ({CALLS}) > 0)", NAME
        ),
        unit="currencyUSD",
        decimals=4,
        links=(ONE_MODEL,),
        no_value="No calls in this range",
        legend="names",
    ),
)

MODELS = (
    table(
        "Models",
        "Every model: averages of 5 minutes at the end of the time range, and cost and tokens over the whole of it. "
        "Times are those of calls that succeeded.",
        tuple(
            Query(expr, instant=True, format="table")
            for expr in (
                f"60 * sum by (provider, model) ({CALLS})",
                ratio(FAILED, CALLS, *BY),
                mean(DURATION, *BY, matchers="@llm"),
                percentile(0.95, DURATION, *BY, matchers="@llm"),
                percentile(0.95, recorded.TTFT, *BY, matchers="@llm"),
                'sum by (provider, model) (increase(llm_tokens_total{@llm, type="input"}[$__range]))',
                'sum by (provider, model) (increase(llm_tokens_total{@llm, type="output"}[$__range]))',
                "sum by (provider, model) (increase(llm_cost_usd_total{@llm}[$__range]))",
            )
        ),
        unit="short",
        columns=(
            Column("provider", "Provider", width=110),
            Column(
                "model",
                "Model",
                links=(only("Only this model", "LLM", VARIABLES, MODEL, "__value.text"),),
            ),
            Column("Value #A", "Calls per minute", unit="short", width=160, bar=True, decimals=1),
            Column(
                "Value #B", "Failed", unit="percentunit", width=90, steps=slo.red_at("llm_error_ratio", 0.1), decimals=1
            ),
            Column("Value #C", "Average", unit="s", width=90),
            Column(
                "Value #D", "p95", unit="s", width=90, steps=slo.red_at("llm_response_seconds", 0.5), bounds=bounds.CALL
            ),
            Column(
                "Value #E",
                "TTFT p95",
                unit="s",
                width=100,
                steps=slo.red_at("llm_first_token_seconds", 0.4),
                bounds=bounds.TTFT,
            ),
            Column("Value #F", "Input tokens", unit="short", width=110),
            Column("Value #G", "Output tokens", unit="short", width=115),
            Column("Value #H", "Cost", unit="currencyUSD", width=100, decimals=2),
        ),
        sort_by=(("Calls per minute", True),),
    ),
)

RESPONSE = (
    timeseries(
        "Model response time",
        "From the request to the end of the answer, retries included, of calls that succeeded.",
        average_and_percentiles(DURATION, 0.5, 0.9, 0.95, 0.99, matchers="@llm"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        legend="names",
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
        legend="names",
    ),
)

STREAMING = (
    timeseries(
        "Time to first token (TTFT)",
        "Streamed answers only: how long a user waits for the answer to begin.",
        percentile_lines(recorded.TTFT, 0.5, 0.9, 0.95, 0.99, matchers="@llm"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value=NOTHING_STREAMED,
        legend="names",
    ),
    timeseries(
        "TTFT p95 by model",
        "95 of 100 streamed answers of the model begin within this time.",
        Query(percentile(0.95, recorded.TTFT, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value=NOTHING_STREAMED,
        legend="names",
    ),
    timeseries(
        "Time per output token (TPOT)",
        "Time between tokens after the first. Below 0.1 s an answer comes faster than it is read.",
        percentile_lines(recorded.TPOT, 0.5, 0.9, 0.95, 0.99, matchers="@llm"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value=NOTHING_STREAMED,
        legend="names",
    ),
    timeseries(
        "TPOT by model, average",
        "Average time between tokens after the first, by model.",
        Query(mean(recorded.TPOT, *BY, matchers="@llm"), NAME),
        unit="s",
        links=(ONE_MODEL,),
        no_value=NOTHING_STREAMED,
        legend="names",
    ),
)

LENGTHS = (
    timeseries(
        "Prompt length, average",
        "Average number of characters in the users' prompts.",
        Query(mean(recorded.PROMPT, *BY, matchers="@llm"), NAME),
        unit="short",
        links=(ONE_MODEL,),
        no_value="No prompts in this range",
        legend="names",
    ),
    timeseries(
        "Prompt length, maximum",
        "The longest prompt of the last minute, in characters. Nothing is missed between two scrapes.",
        Query(f"max by (provider, model) ({recorded.LONGEST_PROMPT.of('@llm')})", NAME),
        unit="short",
        links=(ONE_MODEL,),
        legend="names",
    ),
    heatmap(
        "Prompt length distribution",
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
        legend="names",
    ),
)

RELIABILITY = (
    timeseries(
        "Calls by outcome",
        "Calls per minute. Cancelled: the client left. Incomplete: the answer broke off without a reason.",
        Query(happened(recorded.CALLS, "llm_requests_total", "outcome", matchers="@llm"), "{{outcome}}"),
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
        limit=slo.threshold("llm_error_ratio"),
        links=(ONE_MODEL,),
        legend="names",
    ),
    timeseries(
        "Errors by kind",
        "Failed calls per minute by kind of error.",
        Query(happened(recorded.LLM_ERRORS, "llm_errors_total", "error_type", matchers="@llm"), "{{error_type}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="names",
    ),
    timeseries(
        "Retries",
        "Attempts per minute that were repeated, most of them silently by the provider's client, by cause.",
        Query(happened(recorded.RETRIES, "llm_retries_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
        legend="names",
    ),
    timeseries(
        "Finish reasons",
        "Why answers ended, per minute. `length` means that they were cut off.",
        Query(happened(recorded.FINISH_REASONS, "llm_finish_reasons_total", "reason", matchers="@llm"), "{{reason}}"),
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
        Query(f"sum by (provider, model) ({recorded.CALLS_IN_PROGRESS.of('@llm')})", NAME),
        unit="none",
        stacked=True,
        links=(ONE_MODEL,),
        legend="names",
    ),
)

ACCOUNTING = (
    timeseries(
        "Rate limit remaining",
        "Requests and tokens that the provider still allows in its window, as of its last response. Providers that "
        "do not report it have no line.",
        Query("min by (provider, model, resource) (llm_rate_limit_remaining{@llm})", "{{model}} {{resource}}"),
        unit="short",
        log=True,
        no_value="No provider reports a limit",
        legend="names",
    ),
    timeseries(
        "Tokens per call",
        "Average number of tokens in a call, by direction.",
        Query(mean(recorded.TOKENS_PER_CALL, "type", matchers="@llm"), "{{type}}"),
        unit="short",
        overrides=coloured(TOKEN_COLOURS),
        no_value="No calls in this range",
        legend="names",
    ),
    timeseries(
        "Usage missing, by reason",
        "Calls per minute whose tokens are unknown. Cancelled and failed calls have no usage by nature.",
        Query(happened(recorded.USAGE_MISSING, "llm_usage_missing_total", "reason", matchers="@llm"), "{{reason}}"),
        unit=PER_MINUTE,
        stacked=True,
        legend="names",
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
        legend="names",
    ),
)

DASHBOARD = dashboard(
    "LLM",
    "Tokens, cost and speed of language models, and what goes wrong, by provider and model. Rates and percentiles are "
    "averages of 5 minutes.",
    variables=VARIABLES,
    rows=(
        Row("", sixths(STRIP)),
        Row("Tokens and cost", thirds(TOKENS, 7)),
        Row("Models", full(MODELS, 5)),
        Row("Response time", thirds(RESPONSE, 7)),
        Row("Streaming", quarters(STREAMING, 7)),
        Row("Errors", thirds(RELIABILITY, 7)),
        Row("Spend", thirds(SPEND, 7)),
        Row("Length of prompts and answers", quarters(LENGTHS, 7)),
        Row("Limits and accounting", quarters(ACCOUNTING, 7)),
    ),
)
