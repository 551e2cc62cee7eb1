"""Small functions that write PromQL, so that every panel treats idle time and missing series alike.

Expressions are plain PromQL with abbreviations, which `expand` resolves: `@app`, `@host` and so on stand for the
matchers that the drop-downs set, `@rate` for the window of rates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from prometheus.src.recorded import ALIVE, CHOSEN, Histogram, Recorded

from .errors import DashboardError

_APP = 'job=~"$job", instance=~"$instance"'
_HTTP = f'{_APP}, endpoint=~"$endpoint"'
ABBREVIATIONS = {
    "app": _APP,
    "traffic": f'{_APP}, endpoint!~"$ignored"',
    # Endpoints that wait for a language model always take seconds; their objective uses the start of the response.
    "quick": f'{_APP}, endpoint!~"$ignored", endpoint!~"$streaming"',
    "http": _HTTP,
    "judged": f'{_HTTP}, endpoint!~"$ignored"',
    "llm": f'{_APP}, provider=~"$provider", model=~"$model"',
    "pool": f'{_APP}, pool=~"$pool"',
    "target": _APP,
    "host": 'instance=~"$node"',
    "db": 'instance=~"$server"',
    "data": 'instance=~"$server", datname=~"$datname", datname!~"template.*"',
    "rate": "$__rate_interval",
}

# Distinguish a measured zero from a missing source: series that exist while the source is alive.
SERVICE = ALIVE.of("@app")
POSTGRESQL = "pg_up{@db} == 1"
HOSTS = "node_uname_info{@host}"
PROMETHEUS = ""  # it answers the query itself
SELF_SCRAPE = "prometheus_build_info"  # metrics of Prometheus exist only if it scrapes itself
WATCHDOG = 'ALERTS{alertname="Watchdog", alertstate="firing"}'  # always fires while rules are evaluated

NOTHING = -1_000_000_000  # the value of a tile without data; not NaN, which VictoriaMetrics drops
QUIET = -2_000_000_000  # the value of a tile whose source is alive and has nothing to measure
FAILING = -1  # the value of a tile while everything fails, shown as "failing"
WAITING = -2  # the value while requests are in progress and none completes, shown as "waiting"
LLM_FAILED = 'outcome=~"error|incomplete"'  # an answer that breaks off is a failure for its reader


Matchers = str | tuple[str, ...]  # several: series that one of them matches


def each(matchers: Matchers) -> tuple[str, ...]:
    """The alternatives, one by one."""
    return (matchers,) if isinstance(matchers, str) else matchers


def expand(expr: str) -> str:
    """Resolve the abbreviations.

    Raises:
        DashboardError: an abbreviation is unknown.
    """

    def resolved(match: re.Match[str]) -> str:
        if match[1] not in ABBREVIATIONS:
            raise DashboardError(f"unknown abbreviation {match[0]} in {expr}; known: {', '.join(ABBREVIATIONS)}")
        return ABBREVIATIONS[match[1]]

    return re.sub(r"@([a-z]+)\b", resolved, expr)


def total(expr: str, *by: str) -> str:
    """The sum, keeping the labels `by`."""
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def zero(source: str) -> str:
    """Zero without labels while `source` is alive, otherwise no value."""
    return f"vector(0) and on () {source}" if source else "vector(0)"


def or_zero(expr: str, source: str = SERVICE) -> str:
    """Zero if there is no series but its source is alive. Only for results without labels, as the zero has none."""
    return f"{expr} or {zero(source)}"


def fraction(part: str, whole: str, *by: str) -> str:
    """Share of `part` in `whole`, 0 to 1; 0 if `part` does not exist, no value if `whole` is 0."""
    wholes = total(whole, *by)
    return f"({total(part, *by)} or 0 * {wholes}) / ({wholes} > 0)"


def ratio(part: str, whole: str, *by: str) -> str:
    """The same for graphs, whose lines continue without traffic: 0 if `whole` is 0, unless the service is down."""
    return f"{fraction(part, whole, *by)} or {f'0 * {total(whole, *by)}' if by else zero(SERVICE)}"


def quantile(q: float, buckets: str, *by: str) -> str:
    """Quantile of a classic histogram's bucket rates, interpolated; no value without new observations."""
    # The comparison drops NaN, which stats and legends would print.
    return f"histogram_quantile({q}, {total(buckets, 'le', *by)}) >= 0"


def percentile(q: float, histogram: Histogram, *by: str, matchers: Matchers = "@app") -> str:
    """Quantile of what a recorded histogram observed."""
    return quantile(q, histogram.buckets.of(*each(matchers)), *by)


@dataclass(frozen=True)
class Outcomes:
    """Selectors of requests, calls or queries by outcome; several selectors are alternatives.

    failed, succeeded, left: of counters; left: by clients who waited no longer. under_way: of gauges. not_succeeded:
    of counters of what `succeeded` counts, too.
    """

    failed: tuple[str, ...]
    succeeded: tuple[str, ...]
    under_way: tuple[str, ...]
    left: tuple[str, ...] = ()
    not_succeeded: tuple[str, ...] = ()

    @property
    def success(self) -> str:
        """Has a value if something succeeded within the last minute."""
        if not self.not_succeeded:
            return f"sum({_rates(self.succeeded)}) > 0"
        # Both are counted together, so that their difference is 0 but for rounding; once a minute is 0.017 a second.
        return f"sum({_rates(self.succeeded)}) - ({or_zero(f'sum({_rates(self.not_succeeded)})', '')}) > 0.001"

    @property
    def failing(self) -> str:
        """`FAILING` if something failed within the last minute, and nothing succeeded."""
        return f"vector({FAILING}) and on () (sum({_rates(self.failed)}) > 0 unless on () {self.success})"

    @property
    def waiting(self) -> str:
        """`WAITING` if something was in progress all of the last minute, or was abandoned, and nothing completed."""
        waits = [f"min_over_time({one}[1m])" for one in self.under_way]
        some = " or ".join((*waits, *((_rates(self.left),) if self.left else ())))
        ended = f"unless on () {self.success} unless on () sum({_rates(self.failed)}) > 0"
        return f"vector({WAITING}) and on () (sum({some}) > 0 {ended})"


def _rates(selectors: tuple[str, ...]) -> str:
    return " or ".join(f"rate({one}[1m])" for one in selectors)


# The outcomes of the last minute, for tiles: an average of 5 minutes still shows values from before an outage, such as
# the duration of earlier successes, or the share of failures from before everything hung.


def or_failing(expr: str, outcomes: Outcomes) -> str:
    """A gauge, or `FAILING`, or `WAITING`."""
    return f"{outcomes.failing} or {outcomes.waiting} or {expr}"


def speed(expr: str, outcomes: Outcomes) -> str:
    """A value of successes; `FAILING`, `WAITING` or no value if nothing succeeded within the last minute."""
    return or_failing(f"(({expr}) and on () ({outcomes.success}))", outcomes)


def share(part: str, whole: str, outcomes: Outcomes) -> str:
    """Share of `part` in `whole`, 0 to 1; `WAITING` or no value if `whole` is 0."""
    return f"{outcomes.waiting} or {fraction(part, whole)}"


def http_outcomes(matchers: Matchers, quick: Matchers = "") -> Outcomes:
    """quick: which of them are not under way for a minute if all is well, if not all; a stream may be."""

    def each_of(metric: str, status: str = "", of: Matchers = matchers) -> tuple[str, ...]:
        return tuple(f"{metric}{{{one}{status}}}" for one in each(of))

    return Outcomes(
        failed=each_of("http_requests_total", ', status_code=~"5.."'),
        succeeded=each_of("http_requests_total", ', status_code!~"5..|499"'),
        under_way=each_of("http_requests_in_progress", of=quick or matchers),
        left=each_of("http_requests_total", ', status_code="499"', of=quick or matchers),
    )


def llm_outcomes(matchers: str) -> Outcomes:
    ended = f"llm_requests_total{{{matchers}, %}}"
    return Outcomes(
        failed=(ended.replace("%", LLM_FAILED),),
        succeeded=(ended.replace("%", 'outcome="success"'),),
        under_way=(f"llm_requests_in_progress{{{matchers}}}",),
        left=(ended.replace("%", 'outcome="cancelled"'),),
    )


def mean(histogram: Histogram, *by: str, matchers: Matchers = "@app") -> str:
    """Average of a recorded histogram's observations; no value without new observations."""
    sums, counts = histogram.sum.of(*each(matchers)), histogram.count(*each(matchers))
    return f"{total(sums, *by)} / ({total(counts, *by)} > 0)"


def by_status_class(requests: Recorded, matchers: str) -> str:
    """Rate of requests by class of status (2xx ...), of those that occurred; 2xx is 0 before the first."""

    def classes(expr: str) -> str:
        return f'sum by (class) (label_replace({expr}, "class", "${{1}}xx", "status_code", "(.).."))'

    kinds = classes(moved(requests, "http_requests_total", matchers))
    return occurring(classes(requests.of(matchers)), kinds, "class", name="2xx")


def moved(recorded: Recorded, counter: str, matchers: str) -> str:
    """The series that counted something in the time range: recorded ones, and raw ones that are new in it.

    A counter that appears with its first event has no rate until the second: what was not there at the start is new.
    """
    raw = ", ".join(part for part in (matchers, recorded.only) if part)
    selector, chosen = f"{counter}{{{raw}}}", f"{counter}{{{raw}, {CHOSEN}}}"
    return (
        f"max_over_time({recorded.name}{{{matchers}}}[$__range] @ end()) > 0"
        f" or increase({chosen}[$__range] @ end()) > 0"
        f" or ({selector} @ end() unless {selector} @ start()) > 0"
    )


def occurring(expr: str, kinds: str, *by: str, name: str = "none", source: str = SERVICE) -> str:
    """`expr` by the labels `by`, of those only that `kinds` (of `moved`) has; if it has none, one line `name` at zero.

    Counters of rare things exist at zero from the start, and a legend with ten zeros hides the one that is not.
    `kinds` reads much, so that it stands here once: the line is always in, and is dropped with the kinds that it lacks.
    """
    none, nothing = (
        f'label_replace({at_zero}, "{by[0]}", "{name}", "", "")' for at_zero in (zero(source), "vector(0)")
    )
    return f"({expr} or {none}) and on ({', '.join(by)}) ({total(kinds, *by)} or on () {nothing})"


def happened(recorded: Recorded, counter: str, *by: str, matchers: str = "@app") -> str:
    """Events per minute by kind, of the kinds that occurred in the time range."""
    rates = f"60 * {total(recorded.of(matchers), *by)}"
    return occurring(rates, moved(recorded, counter, matchers), *by)


def happened_raw(counter: str, *by: str, source: str) -> str:
    """The same of a counter that few series have, and that nothing records: over the window of rates."""
    born = f"last_over_time({counter}[$__range] @ end()) unless {counter} @ start()"
    kinds = f"increase({counter}[$__range] @ end()) > 0 or ({born}) > 0"
    return occurring(f"60 * {total(f'rate({counter}[@rate])', *by)}", kinds, *by, source=source)


def occurrences(counter: str, matchers: str, *by: str) -> str:
    """How often a counter of rare events counted in the time range, the first event included; for instant queries."""
    selector = f"{counter}{{{matchers}}}"
    new = f"last_over_time({selector}[$__range]) unless {selector} offset $__range"
    return f"round({total(f'({new}) or increase({selector}[$__range])', *by)}) > 0"


def exemplars(*buckets: str) -> str:
    """A query without series that selects raw buckets: Grafana draws their exemplars. Evaluated once per graph.

    What is recorded has no exemplars.
    """
    return " or ".join(f"{one} @ end() < 0" for one in buckets)


def heat(histogram: Histogram, matchers: str = "@app") -> str:
    """Observations per second in each bucket, for a heatmap; empty if there is no histogram in the time range."""
    known = f'last_over_time({histogram.buckets.name}{{{matchers}, le="+Inf"}}[$__range] @ end())'
    return f"{total(histogram.buckets.of(matchers), 'le')} or on () ({EMPTY_HEATMAP} unless on () {known})"


EMPTY_HEATMAP = 'label_replace(vector(0), "le", "+Inf", "", "")'


def or_named(expr: str, label: str, ever: str, name: str = "none", source: str = SERVICE) -> str:
    """One series called `name` in `label`, at zero, if the time range has none of `ever`, of which `expr` is made.

    A quiet panel is not an empty one; and one that is not quiet has no line more than it should. `ever` is evaluated
    at the end of the time range: the same answer at every point in the graph.
    """
    return f'{expr} or on () (label_replace({zero(source)}, "{label}", "{name}", "", "") unless on () ({ever}))'
