"""The metrics' buckets, and the series that a listed model has before its first call."""

from __future__ import annotations

from prometheus_client import REGISTRY

from app.telemetry import llm as telemetry


def _bounds(name: str, **labels: str) -> list[float]:
    return [
        float(sample.labels["le"])
        for family in REGISTRY.restricted_registry([f"{name}_bucket"]).collect()
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    ][:-1]


def test_buckets(model: str) -> None:
    labels = {"provider": "openai", "model": model}
    doubling = [0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84]
    assert _bounds("llm_request_duration_seconds", outcome="success", **labels) == doubling
    doubling = [0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48]
    assert _bounds("llm_time_to_first_token_seconds", **labels) == doubling
    per_token = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5]
    assert _bounds("llm_time_per_output_token_seconds", **labels) == per_token
    fourfold = [64, 256, 1024, 4096, 16384, 65536, 262144]
    assert _bounds("llm_request_tokens", type="input", **labels) == fourfold
    assert _bounds("llm_prompt_length_characters", **labels) == fourfold


def test_listed_models_start_at_zero(model: str) -> None:
    """So that a dashboard shows 0, and the first error is an increase."""
    samples = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name not in ("provider", "model"))): (
            sample.value
        )
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("provider") == "openai" and sample.labels.get("model") == model
        if not sample.name.endswith("_created")
    }
    assert set(samples.values()) == {0.0}
    for outcome in ("success", "error", "cancelled", "incomplete"):
        assert ("llm_requests_total", "chat", outcome) in samples
        assert ("llm_request_duration_seconds_count", "chat", outcome) in samples
    for kind in telemetry.ERROR_TYPES:
        assert ("llm_errors_total", kind) in samples
        assert ("llm_retries_total", kind) in samples
    for kind in ("input", "output"):
        assert ("llm_tokens_total", kind) in samples
        assert ("llm_request_tokens_count", kind) in samples
    for name in (
        "llm_requests_in_progress",
        "llm_prompt_length_characters_max",
        "llm_prompt_length_characters_count",
        "llm_time_to_first_token_seconds_count",
        "llm_time_per_output_token_seconds_count",
        "llm_cost_usd_total",
        "llm_unpriced_requests_total",
    ):
        assert (name,) in samples
    assert {name[1] for name in samples if name[0] == "llm_finish_reasons_total"} == set(telemetry.FINISH_REASONS)
    assert {name[1] for name in samples if name[0] == "llm_usage_missing_total"} == set(telemetry.USAGE_MISSING_REASONS)
    assert {name[1] for name in samples if name[0] == "llm_token_details_total"} == set(telemetry.TOKEN_DETAILS)
