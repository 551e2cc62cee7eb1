"""Small functions that write PromQL, so that every panel treats idle time and missing series alike.

Expressions are plain PromQL with abbreviations, which `expand` resolves: `@app`, `@host` and so on stand for the
matchers that the drop-downs set, `@rate` for the window of rates.
"""

from __future__ import annotations

import re

from .errors import DashboardError

_APP = 'job=~"$job", instance=~"$instance"'
# What people ask for, and the objectives judge. `ignored` and `streaming` are constants of a dashboard (common.py).
_PEOPLE = 'endpoint!~"$ignored"'
# Endpoints that wait for a language model take seconds by nature; the objective judges them by their own measure.
_QUICK = 'endpoint!~"$streaming"'
_HTTP = f'{_APP}, endpoint=~"$endpoint", {_PEOPLE}'
ABBREVIATIONS = {
    "app": _APP,
    "people": _PEOPLE,
    "traffic": f"{_APP}, {_PEOPLE}",
    "quick": f"{_APP}, {_PEOPLE}, {_QUICK}",
    "http": _HTTP,
    "quickhttp": f"{_HTTP}, {_QUICK}",
    "llm": f'{_APP}, provider=~"$provider", model=~"$model"',
    "pool": f'{_APP}, pool=~"$pool"',
    "target": _APP,
    "host": 'instance=~"$node"',
    "db": 'instance=~"$server"',
    "data": 'instance=~"$server", datname=~"$datname", datname!~"template.*"',
    "rate": "$__rate_interval",
}

# Where zero is the truth and not the silence of a dead source: what has a value while the source is there to count.
SERVICE = "app_info{@app}"
POSTGRESQL = "pg_up{@db} == 1"
HOSTS = "node_uname_info{@host}"
PROMETHEUS = ""  # answers itself


def expand(expr: str) -> str:
    """Resolves the abbreviations. Raises DashboardError for an unknown one."""

    def resolved(match: re.Match[str]) -> str:
        if match[1] not in ABBREVIATIONS:
            raise DashboardError(f"unknown abbreviation {match[0]} in {expr}; known: {', '.join(ABBREVIATIONS)}")
        return ABBREVIATIONS[match[1]]

    return re.sub(r"@([a-z]+)\b", resolved, expr)


def total(expr: str, *by: str) -> str:
    """The sum, keeping the labels `by`."""
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def zero(source: str) -> str:
    """Zero without labels while `source` is alive, else nothing."""
    return f"vector(0) and on () {source}" if source else "vector(0)"


def or_zero(expr: str, source: str = SERVICE) -> str:
    """Zero where there is no series but its source is alive. Only for results without labels: zero has none."""
    return f"{expr} or {zero(source)}"


def ratio(part: str, whole: str, *by: str, source: str = SERVICE) -> str:
    """Share of `part` in `whole`, 0 to 1.

    0 where nothing of `part` exists, and 0 where `whole` is idle (0/0 would be NaN), nothing where `source` is dead.
    """
    wholes = total(whole, *by)
    return f"({total(part, *by)} or 0 * {wholes}) / ({wholes} > 0) or {f'0 * {wholes}' if by else zero(source)}"


def quantile(q: float, histogram: str, *by: str, matchers: str = "@app") -> str:
    """Quantile of a classic histogram, interpolated within its bucket; nothing while it does not move."""
    buckets = total(f"rate({histogram}_bucket{{{matchers}}}[@rate])", "le", *by)
    return f"histogram_quantile({q}, {buckets}) >= 0"  # drops NaN, which stats and legends would print


def mean(histogram: str, *by: str, matchers: str = "@app") -> str:
    """Average of what a histogram observed; nothing while it does not move."""
    sums = total(f"rate({histogram}_sum{{{matchers}}}[@rate])", *by)
    counts = total(f"rate({histogram}_count{{{matchers}}}[@rate])", *by)
    return f"{sums} / ({counts} > 0)"


def by_status_class(selector: str) -> str:
    """Rate of http_requests_total by class of status (2xx ...), of those that occurred; 2xx is 0 before the first."""
    counter = f"http_requests_total{{{selector}}}"

    def classes(expr: str) -> str:
        return f'sum by (class) (label_replace({expr}, "class", "${{1}}xx", "status_code", "(.).."))'

    kinds = classes(moved(counter))
    return or_named(f"{classes(f'rate({counter}[@rate])')} and on (class) ({kinds})", "class", kinds, name="2xx")


def transactions(matchers: str = "@app") -> str:
    """Transactions per second by outcome, of those that occurred."""
    counter = f"db_transactions_total{{{matchers}}}"
    return occurring(f"sum by (outcome) (rate({counter}[@rate]))", counter, "outcome")


def moved(counter: str) -> str:
    """The series of `counter` that counted something in the time range.

    One that appears with its first event has no increase until the second: what was not there at the start is new.
    """
    born = f"last_over_time({counter}[$__range] @ end()) unless {counter} @ start()"
    return f"increase({counter}[$__range] @ end()) > 0 or ({born}) > 0"


def occurring(expr: str, counter: str, *by: str, source: str = SERVICE) -> str:
    """`expr` by the labels `by`, of those only whose `counter` moved in the time range; a line "none" if none did.

    Counters of rare things exist at zero from the start, and a legend with ten zeros hides the one that is not.
    """
    kinds = total(moved(counter), *by)
    return or_named(f"({expr}) and on ({', '.join(by)}) ({kinds})", by[0], kinds, source=source)


def happened(counter: str, *by: str, matchers: str = "@app", source: str = SERVICE) -> str:
    """Events per minute by kind, of the kinds that occurred in the time range."""
    return occurring(per_minute(counter, *by, matchers=matchers), f"{counter}{{{matchers}}}", *by, source=source)


def per_minute(counter: str, *by: str, matchers: str = "@app") -> str:
    """Events per minute, keeping the labels `by`."""
    return "60 * " + total(f"rate({counter}{{{matchers}}}[@rate])", *by)


def heat(histogram: str, matchers: str = "@app") -> str:
    """Observations per second in each bucket, for a heatmap; an empty one where the time range knows no histogram."""
    buckets = total(f"rate({histogram}_bucket{{{matchers}}}[@rate])", "le")
    empty = 'label_replace(vector(0), "le", "+Inf", "", "")'
    return f"{buckets} or on () ({empty} unless on () increase({histogram}_count{{{matchers}}}[$__range] @ end()))"


def or_nothing_now(expr: str) -> str:
    """NaN at the end of the time range where there is no result: what a stat needs to see that its last value is old.

    Only at the end, because a sparkline draws a ramp from NaN to the next value.
    """
    if expr.endswith(f" or {zero(PROMETHEUS)}"):
        return expr
    return f"{expr} or vector(NaN) and vector(time()) > ${{__to:date:seconds}} - $__interval_ms / 1000"


def or_named(expr: str, label: str, ever: str, name: str = "none", source: str = SERVICE) -> str:
    """One series called `name` in `label`, at zero, if the time range has none of `ever`, of which `expr` is made.

    A quiet panel is not an empty one; and one that is not quiet has no line more than it should. `ever` is evaluated
    at the end of the time range: the same answer at every point in the graph.
    """
    return f'{expr} or on () (label_replace({zero(source)}, "{label}", "{name}", "", "") unless on () ({ever}))'
