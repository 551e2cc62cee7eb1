"""LLM: cost, latency and errors of calls, by provider and model."""

from __future__ import annotations

from prometheus.src import recorded

from . import bounds, slo
from .common import MODEL, TOKEN_COLOURS, dashboard, only
from .common_panels import service_stat
from .layout import full, quarters, sixths, thirds
from .llm_calls import (
    ACCOUNTING,
    BUDGET,
    BY,
    CALLS,
    DURATION,
    FAILED,
    LENGTHS,
    NAME,
    ONE_MODEL,
    RELIABILITY,
    RESPONSE,
    STREAMING,
    VARIABLES,
)
from .looks import PER_MINUTE, Steps, coloured, dashed
from .model import Link, Panel, Query, Row
from .panels import timeseries
from .promql import LLM_FAILED, fraction, llm_outcomes, mean, or_zero, percentile, share, speed
from .tables import Column, table

TOKENS_IN = recorded.TOKENS.of('@llm, type="input"')
TOKENS_OUT = recorded.TOKENS.of('@llm, type="output"')


def model_p95(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "Model p95",
        "95 of 100 successful LLM calls complete within this time, average of 5 minutes; idle if none succeeded within "
        "the last minute.",
        speed(percentile(0.95, DURATION, matchers=matchers), llm_outcomes(matchers)),
        unit="s",
        steps=slo.red_at("llm_response_seconds", 0.5),
        no_value="idle",
        bounds=bounds.CALL,
        links=links,
    )


def failed_calls(matchers: str, *links: Link) -> Panel:
    failed = recorded.CALLS.of(f"{matchers}, {LLM_FAILED}")
    return service_stat(
        "LLM errors",
        "Share of LLM calls that ended with an error after all retries, or broke off in the middle of the answer, "
        "average of 5 minutes.",
        share(failed, recorded.CALLS.of(matchers), llm_outcomes(matchers)),
        unit="percentunit",
        decimals=1,
        steps=slo.red_at("llm_error_ratio", 0.1),
        no_value="idle",
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
        "LLM calls that ended per minute, all outcomes, average of 5 minutes.",
        or_zero(f"60 * sum({CALLS})"),
        unit=PER_MINUTE,
        decimals=1,
    ),
    failed_calls("@llm"),
    model_p95("@llm"),
    service_stat(
        "TTFT p95",
        "Time to first token: 95 of 100 streamed answers begin within this time.",
        speed(percentile(0.95, recorded.TTFT, matchers="@llm"), llm_outcomes("@llm")),
        unit="s",
        steps=slo.red_at("llm_first_token_seconds", 0.4),
        no_value="idle",
        bounds=bounds.TTFT,
    ),
    service_stat(
        "TPOT p95",
        "Time per output token after the first: 95 of 100 streamed answers come at least this fast. Below 0.1 s an "
        "answer arrives faster than it can be read.",
        speed(percentile(0.95, recorded.TPOT, matchers="@llm"), llm_outcomes("@llm")),
        unit="s",
        steps=Steps(0.1, 0.25),
        no_value="idle",
        bounds=bounds.TPOT,
    ),
    service_stat(
        "In progress",
        "Calls that wait for a model now.",
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
    service_stat(
        "No usage",
        "Share of calls whose tokens and cost are unknown and missing in the tiles of tokens and cost. If a client "
        "leaves a stream, the provider has not sent them yet.",
        share(recorded.USAGE_MISSING.of("@llm"), CALLS, llm_outcomes("@llm")),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.1, 0.3),
        no_value="idle",
    ),
    service_stat(
        "Cost/hour",
        "Cost of tokens at the current rate, by the price table of the service.",
        or_zero(f"3600 * sum({recorded.COST.of('@llm')})"),
        unit="currencyUSD",
        decimals=2,
    ),
    service_stat(
        "Cost/call",
        "Average cost of a call, all outcomes, over 5 minutes.",
        share(recorded.COST.of("@llm"), CALLS, llm_outcomes("@llm")),
        unit="currencyUSD",
        decimals=4,
        no_value="idle",
    ),
    service_stat(
        "Unpriced",
        "Share of calls whose tokens are known but whose model has no price: their cost is missing.",
        share(recorded.UNPRICED.of("@llm"), CALLS, llm_outcomes("@llm")),
        unit="percentunit",
        decimals=1,
        steps=Steps(0.01, 0.1),
        no_value="idle",
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
    ),
    timeseries(
        "Tokens by model",
        "Tokens per second, input and output together.",
        Query(f"sum by (provider, model) ({recorded.TOKENS.of('@llm')})", NAME),
        unit="count:tokens/s",
        stacked=True,
        links=(ONE_MODEL,),
    ),
    timeseries(
        "Cost per hour by model",
        "US dollars per hour at the current rate. Models without a price are missing: see unpriced calls above.",
        Query(f"3600 * sum by (provider, model) ({recorded.COST.of('@llm')})", NAME),
        unit="currencyUSD",
        decimals=2,
        stacked=True,
        links=(ONE_MODEL,),
    ),
)

SPEND = (
    timeseries(
        "Spend of a day",
        "US dollars within the last 24 hours, by model, of all instances. The line, the budget, is a day at the "
        "hourly cost at which LlmCostHigh fires.",
        (Query(spent("1d", *BY), NAME), Query(f"vector({BUDGET:g})", "budget")),
        unit="currencyUSD",
        decimals=2,
        overrides=dashed("budget", colour="red", links=[]),
        links=(ONE_MODEL,),
    ),
    timeseries(
        "Spend of 30 days",
        "US dollars within the last 30 days, or as long as Prometheus has data, of all instances. The line, the "
        "budget, is 30 days at the hourly cost at which LlmCostHigh fires.",
        (Query(spent("30d"), "spend"), Query(f"vector({30 * BUDGET:g})", "budget")),
        unit="currencyUSD",
        decimals=2,
        overrides=(*coloured({"spend": "blue"}), *dashed("budget", colour="red")),
    ),
    timeseries(
        "Cost per call by model",
        "Average cost of a call.",
        Query(
            f"sum by (provider, model) ({recorded.COST.of('@llm')}) / (sum by (provider, model) ({CALLS}) > 0)", NAME
        ),
        unit="currencyUSD",
        decimals=4,
        soft_highest=0.001,
        links=(ONE_MODEL,),
        no_value="No calls in this range",
    ),
)

MODELS = (
    table(
        "Models",
        "Every model: averages of 5 minutes at the end of the time range, and cost and tokens over the whole of it. "
        "Times are those of calls that succeeded.",
        (
            f"60 * sum by (provider, model) ({CALLS})",
            fraction(FAILED, CALLS, *BY),
            mean(DURATION, *BY, matchers="@llm"),
            percentile(0.95, DURATION, *BY, matchers="@llm"),
            percentile(0.95, recorded.TTFT, *BY, matchers="@llm"),
            'sum by (provider, model) (increase(llm_tokens_total{@llm, type="input"}[$__range]))',
            'sum by (provider, model) (increase(llm_tokens_total{@llm, type="output"}[$__range]))',
            "sum by (provider, model) (increase(llm_cost_usd_total{@llm}[$__range]))",
        ),
        unit="short",
        columns=(
            Column("provider", "Provider", width=85),
            Column(
                "model",
                "Model",
                links=(only("Only this model", "LLM", VARIABLES, MODEL, "__value.text"),),
            ),
            Column("Value #A", "Calls/min", unit="short", width=105, bar=True, decimals=1),
            Column(
                "Value #B", "Failed", unit="percentunit", width=70, steps=slo.red_at("llm_error_ratio", 0.1), decimals=1
            ),
            Column("Value #C", "Average", unit="s", width=75),
            Column(
                "Value #D", "p95", unit="s", width=80, steps=slo.red_at("llm_response_seconds", 0.5), bounds=bounds.CALL
            ),
            Column(
                "Value #E",
                "TTFT p95",
                unit="s",
                width=85,
                steps=slo.red_at("llm_first_token_seconds", 0.4),
                bounds=bounds.TTFT,
            ),
            Column("Value #F", "Tokens in", unit="short", width=85),
            Column("Value #G", "Tokens out", unit="short", width=95),
            Column("Value #H", "Cost", unit="currencyUSD", width=75, decimals=2),
        ),
        sort_by=(("Calls/min", True),),
    ),
)

DASHBOARD = dashboard(
    "LLM",
    "Tokens, cost, latency and errors of LLM calls by provider and model. Rates and percentiles are averages of "
    "5 minutes.",
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
