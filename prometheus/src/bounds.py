"""The bounds of the service's histograms that Prometheus keeps: prometheus.yml drops some (metric_relabel_configs)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import yaml
from prometheus_client.utils import floatToGoString

from .settings import FILE

CONFIGURATION = FILE.parent / "prometheus.yml"


def kept(metric: str, bounds: Iterable[float]) -> tuple[float, ...]:
    """Those of `bounds` that Prometheus keeps of the histogram `metric`, such as `http_request_duration_seconds`."""
    dropped = _dropped()
    return tuple(
        bound for bound in bounds if not any(rule.fullmatch(f"{metric}_bucket;{_text(bound)}") for rule in dropped)
    )


def _text(bound: float) -> str:
    """The value of the label `le`."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


@cache
def _dropped() -> list[re.Pattern[str]]:
    """The regular expressions that drop by name and bound."""
    return [
        re.compile(rule["regex"])
        for job in yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["scrape_configs"]
        for rule in job.get("metric_relabel_configs", [])
        if rule.get("source_labels") == ["__name__", "le"] and rule.get("action") == "drop"
    ]
