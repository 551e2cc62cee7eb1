"""The bounds of the service's histograms: percentiles are only as exact as these, so tiles show the bound.

These are the telemetry's default bounds. A service with others sets them where these are defined, then `make generate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import Histogram

from app.telemetry.database import metrics as database
from app.telemetry.http.metrics import DURATION_BUCKETS
from app.telemetry.llm import metrics as llm

from .model import Json


def _of(histogram: Histogram) -> tuple[float, ...]:
    return tuple(histogram._upper_bounds[:-1])  # the last one is infinite


RESPONSE = DURATION_BUCKETS
QUERY = _of(database.QUERY_DURATION)
CHECKOUT_WAIT = _of(database.POOL_WAIT)
CALL = _of(llm.DURATION)
TTFT = _of(llm.TIME_TO_FIRST_TOKEN)
TPOT = _of(llm.TIME_PER_OUTPUT_TOKEN)


def mappings(bounds: Sequence[float], first: int = 0) -> list[Json]:
    """Value mappings that show seconds as the bound of their bucket: "≤ 250 ms", beyond the last but one "> 30 s".

    A percentile in the bucket without an end is computed as the last bound, so that one says no more than the bucket
    before it. A value on a bound belongs to the bucket that ends with it, and Grafana takes the first match.

    first: the index of the first mapping in the panel.
    """
    *known, last = bounds
    texts: Iterable[tuple[float, float, str]] = (
        *((low, high, f"≤ {seconds(high)}") for low, high in zip((0.0, *known), known, strict=False)),
        (known[-1], last, f"> {seconds(known[-1])}"),
    )
    return [
        {"type": "range", "options": {"from": low, "to": high, "result": {"text": text, "index": first + index}}}
        for index, (low, high, text) in enumerate(texts)
    ]


def seconds(value: float) -> str:
    """As Grafana writes it, in whole or few digits: 250 ms, 2.5 s."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value:g} s"
