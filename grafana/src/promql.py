"""Small functions that write PromQL, so that every panel treats idle time and missing series alike.

Expressions are plain PromQL with four abbreviations, which `expand` resolves: `@app`, `@host` and `@db` are the
matchers that the drop-downs set, `@rate` is the window for rates.
"""

from __future__ import annotations

import re

ABBREVIATIONS = {
    "app": 'job=~"$job", instance=~"$instance"',
    "host": 'instance=~"$node"',
    "db": 'instance=~"$server"',
    "rate": "$__rate_interval",
}


def expand(expr: str) -> str:
    """Resolves the abbreviations."""
    return re.sub(r"@(app|host|db|rate)\b", lambda match: ABBREVIATIONS[match.group(1)], expr)


def total(expr: str, *by: str) -> str:
    """The sum, keeping the labels `by`."""
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def rate(selector: str) -> str:
    """Per second, of a counter."""
    return f"rate({selector}[@rate])"


def or_zero(expr: str) -> str:
    """Zero where there is no series at all. Only for results without labels: `vector(0)` has none."""
    return f"{expr} or vector(0)"


def ratio(part: str, whole: str, *by: str) -> str:
    """Share of `part` in `whole`, 0 to 1.

    0 where nothing of `part` exists, and 0 where `whole` is idle (0/0 would be NaN).
    """
    wholes = total(whole, *by)
    idle = f"0 * {wholes}" if by else "vector(0)"
    return f"({total(part, *by)} or {idle}) / ({wholes} > 0) or {idle}"


def quantile(q: float, histogram: str, *by: str, matchers: str = "@app") -> str:
    """Quantile of a classic histogram, interpolated within its bucket; nothing (NaN) while it does not move."""
    buckets = total(f"rate({histogram}_bucket{{{matchers}}}[@rate])", "le", *by)
    return f"histogram_quantile({q}, {buckets})"


def mean(histogram: str, *by: str, matchers: str = "@app") -> str:
    """Average of what a histogram observed; nothing (NaN) while it does not move."""
    sums = total(f"rate({histogram}_sum{{{matchers}}}[@rate])", *by)
    counts = total(f"rate({histogram}_count{{{matchers}}}[@rate])", *by)
    return f"{sums} / {counts}"


def observed(expr: str) -> str:
    """Drops NaN, for stats and tables, which would print it."""
    return f"{expr} >= 0"


def heat(histogram: str, matchers: str = "@app") -> str:
    """Observations per second in each bucket, for a heatmap."""
    return total(f"rate({histogram}_bucket{{{matchers}}}[@rate])", "le")
