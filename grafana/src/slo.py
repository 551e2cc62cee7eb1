"""The objectives and their endpoints, from prometheus/slo.toml, and the colours that follow from thresholds."""

from __future__ import annotations

from prometheus.src.settings import SETTINGS

from .looks import Steps

ERROR_RATIO = SETTINGS.objectives["availability"].budget
SLOW_RATIO = SETTINGS.objectives["latency"].budget
LATENCY = SETTINGS.latency_seconds
START = SETTINGS.start_seconds  # until a streaming endpoint's response starts
BURN_LIMIT = SETTINGS.page_factor  # burn rate over an hour that pages on-call
BUDGET_DAYS = SETTINGS.budget_days
IGNORED = SETTINGS.ignored
STREAMING = SETTINGS.streaming
WITHOUT_STREAMING = f"Without endpoints that wait for a model ({STREAMING.replace('|', ', ')})."
ERROR_STEPS = Steps(ERROR_RATIO, 10 * ERROR_RATIO)  # orange from the objective on


def threshold(name: str) -> float:
    """A threshold of an alert, by its name in slo.toml."""
    return SETTINGS.thresholds[name]


def red_at(name: str, orange: float) -> Steps:
    """Red from the alert's threshold on, by its name in slo.toml; orange from this share of it on."""
    limit = threshold(name)
    return Steps(round(orange * limit, 10), limit)
