"""What the metrics say about one model, and what they should say."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Metric
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.llm import Price
from app.telemetry.llm.metrics import series_of

if TYPE_CHECKING:
    import pytest  # not in the workers that read their numbers with this

PRICE = Price(input=1.0, output=10.0, cache_read=0.1, cache_write=1.25, cache_write_1h=2.0)

Numbers = dict[str, float]
KINDS = ("input", "output")
PROMPT = "Hello there"


def measured(provider: str, model: str, text: str | None = None) -> Numbers:
    """All that is not 0 for this provider and model, in this process or in the text of a scrape.

    Without buckets and without sums of seconds.

    `llm_tokens_total{type=input}`: the provider and the model are left out of the names.
    """
    numbers: Numbers = {}
    for family in _families(provider, model) if text is None else text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            if not sample.name.startswith("llm_") or (labels.pop("provider"), labels.pop("model")) != (provider, model):
                continue
            if sample.value == 0 or sample.name.endswith(("_bucket", "_created", "_seconds_sum")):
                continue
            rest = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
            numbers[f"{sample.name}{{{rest}}}" if rest else sample.name] = sample.value
    return numbers


def _families(provider: str, model: str) -> Iterator[Metric]:
    """What REGISTRY.collect() yields of this model alone: earlier tests leave tens of thousands of series of others."""
    collector: Any  # there is no public way to the series of some labels
    for collector, names in list(REGISTRY._collector_to_names.items()):
        if not any(name.startswith("llm_") for name in names):
            continue
        if getattr(collector, "_labelnames", ())[:2] == ("provider", "model"):
            of_all, collector = collector._metrics, copy(collector)
            collector._metrics = {values: child for values, child in of_all.items() if values[:2] == (provider, model)}
        yield from collector.collect()


def measured_alone(provider: str, model: str) -> Numbers:
    """The same without a look at other models: for tests that have hundreds of them."""
    series = series_of((provider, model))
    children: list[tuple[Any, str]] = [(child, "") for child in vars(series).values() if hasattr(child, "collect")]
    children += [
        (child, f"{{type={kind}}}") for child, kind in zip(vars(series).get("tokens", ()), KINDS * 2, strict=False)
    ]
    children += [
        (child, f"{{{metric._labelnames[-1]}={value}}}") for (metric, value), child in series._of_value.items()
    ]
    for (operation, outcome), pair in series._of_outcome.items():
        children += [(child, f"{{operation={operation},outcome={outcome}}}") for child in pair]
    return {
        f"{sample.name}{labels}": sample.value
        for child, labels in children
        for family in child.collect()
        for sample in family.samples
        if sample.value and not sample.name.endswith(("_bucket", "_created", "_seconds_sum"))
    }


def seconds(metric: str, provider: str, model: str) -> float:
    """The sum of a histogram of seconds."""
    samples = (sample for family in _families(provider, model) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == f"{metric}_sum")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the telemetry has logged; messages of libraries are ignored."""
    return [record.getMessage() for record in caplog.records if record.name == "sightline_telemetry"]


def call(outcome: str, prompt: int = len(PROMPT), operation: str = "chat", calls: int = 1) -> Numbers:
    labels = f"{{operation={operation},outcome={outcome}}}"
    numbers = {
        f"llm_requests_total{labels}": calls,
        f"llm_request_duration_seconds_count{labels}": calls,
        "llm_prompt_length_characters_count": calls,
        "llm_prompt_length_characters_sum": prompt * calls,
        "llm_prompt_length_characters_max": prompt,
    }
    return {name: float(value) for name, value in numbers.items()}


def tokens(given: int, made: int, usd: float, cache_read: int = 0, cache_write: int = 0, reasoning: int = 0) -> Numbers:
    numbers = {
        "llm_tokens_total{type=input}": given,
        "llm_tokens_total{type=output}": made,
        "llm_request_tokens_sum{type=input}": given,
        "llm_request_tokens_sum{type=output}": made,
        "llm_request_tokens_count{type=input}": 1,
        "llm_request_tokens_count{type=output}": 1,
        "llm_token_details_total{detail=input_cache_read}": cache_read,
        "llm_token_details_total{detail=input_cache_write}": cache_write,
        "llm_token_details_total{detail=output_reasoning}": reasoning,
        "llm_cost_usd_total": usd,
    }
    return {name: float(value) for name, value in numbers.items() if value}


def finish(reason: str) -> Numbers:
    return {f"llm_finish_reasons_total{{reason={reason}}}": 1.0}


def missing(reason: str) -> Numbers:
    return {f"llm_usage_missing_total{{reason={reason}}}": 1.0}


def failed(kind: str) -> Numbers:
    return {f"llm_errors_total{{error_type={kind}}}": 1.0}


def retried(reason: str, times: int = 1) -> Numbers:
    return {f"llm_retries_total{{reason={reason}}}": float(times)}


FIRST_TOKEN: Numbers = {"llm_time_to_first_token_seconds_count": 1.0}
STREAMED: Numbers = FIRST_TOKEN | {"llm_time_per_output_token_seconds_count": 1.0}
SUCCESS, ERROR, CANCELLED, INCOMPLETE = (call(each) for each in ("success", "error", "cancelled", "incomplete"))
# 20 fresh and 100 cached input, 30 output of which 10 reasoning; per million: 1, 0.1 and 10 dollars
OPENAI_TOKENS = tokens(120, 30, (20 * 1 + 100 * 0.1 + 30 * 10) / 1e6, cache_read=100, reasoning=10)
# 20 fresh, 80 read, 40 written of which 10 for an hour, 30 output; per million: 1, 0.1, 1.25, 2 and 10 dollars
ANTHROPIC_USD = (20 * 1 + 80 * 0.1 + 30 * 1.25 + 10 * 2 + 30 * 10) / 1e6
ANTHROPIC_TOKENS = tokens(140, 30, ANTHROPIC_USD, cache_read=80, cache_write=40)
# What a stream that breaks off has reported: the input, and one token of output
ANTHROPIC_START = tokens(140, 1, ANTHROPIC_USD - 29 * 10 / 1e6, cache_read=80, cache_write=40)
