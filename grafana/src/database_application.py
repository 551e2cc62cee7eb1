"""Database, the application's view: its pool, queries and transactions, beside PostgreSQL's view of the same."""

from __future__ import annotations

from dataclasses import replace

from prometheus.src import recorded

from . import bounds, slo
from .common import LATENCY_COLOURS, OUTCOME_COLOURS, POOL, POOL_COLOURS, only
from .common_panels import average_and_percentiles, service_stat
from .database_postgresql import COMMITS, ROLLBACKS, VARIABLES
from .looks import PER_MINUTE, Steps, coloured, dashed
from .model import Link, Panel, Query
from .panels import heatmap, timeseries
from .promql import Outcomes, happened, heat, moved, occurring, or_failing, or_zero, percentile, speed

ONE_POOL = only("Only ${__field.labels.pool}", "Database", VARIABLES, POOL, "__field.labels.pool")
# Why the two transaction counts differ.
PER_CHECKOUT = (
    "PostgreSQL counts all clients, including the exporter, and with pool_pre_ping the ping at each checkout: about "
    "twice the application's count."
)


def top(number: int) -> str:
    """The names that took the most time in the whole time range, so that all panels show the same ones."""
    times = f'avg_over_time({recorded.QUERY_BY_NAME.sum.name}{{job=~"$job", pool=~"$pool"}}[$__range] @ end())'
    return f"topk({number}, sum by (query_name) ({times}))"


def transactions(matchers: str) -> str:
    """Transactions per second by outcome, of those that occurred."""
    kinds = moved(recorded.TRANSACTIONS, "db_transactions_total", matchers)
    return occurring(f"sum by (outcome) ({recorded.TRANSACTIONS.of(matchers)})", kinds, "outcome")


SQLSTATE = 'sqlstate_class!="23"'  # a violated constraint is not a failure


def pool_use(matchers: str) -> str:
    """Share of connections in use, of the fullest pool: an average would hide an exhausted one."""
    used = f'sum without (state) (db_pool_connections{{{matchers}, state="used"}})'
    return or_zero(f"max({used} / (db_pool_connections_max{{{matchers}}} > 0))")


def checkouts(matchers: str) -> Outcomes:
    """Of queries, connections, commits and checkouts; who waits for a connection is under way.

    Queries that fail are timed, too, and no connection and no end of a transaction is one.
    """
    errors = f"db_query_errors_total{{{matchers}, {SQLSTATE}"
    return Outcomes(
        failed=(f"{errors}}}", f"db_pool_checkout_timeouts_total{{{matchers}}}"),
        succeeded=(f'db_query_duration_seconds_bucket{{{matchers}, le="+Inf"}}',),
        not_succeeded=(f'{errors}, operation!~"CONNECT|COMMIT|ROLLBACK"}}',),
        under_way=(f"db_pool_pending_checkouts{{{matchers}}}",),
    )


def queries(matchers: str) -> Outcomes:
    """The same; who has a connection is under way, too."""
    waiting = checkouts(matchers)
    return replace(waiting, under_way=(*waiting.under_way, f'db_pool_connections{{{matchers}, state="used"}}'))


def pool_in_use(matchers: str, *links: Link) -> Panel:
    in_use = pool_use(matchers)
    return service_stat(
        "Pool in use",
        "Checked-out connections as a share of the pool's maximum, for the fullest of the application's pools.",
        # A pool without connections is not idle; a full one shows 100 %.
        f"({in_use}) >= {slo.threshold('pool_used_ratio')} or {or_failing(in_use, checkouts(matchers))}",
        unit="percentunit",
        decimals=0,
        steps=slo.red_at("pool_used_ratio", 0.8),
        links=links,
    )


def query_errors(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "SQL errors",
        "Queries, connections and commits that failed per minute, as the application sees them, average of 5 "
        "minutes. Without SQLSTATE class 23: applications use constraint violations to detect, for example, that a "
        "name is taken.",
        or_zero(f"60 * sum({recorded.QUERY_ERRORS.of(f'{matchers}, {SQLSTATE}')})"),
        unit=PER_MINUTE,
        decimals=1,
        steps=Steps(0.1, 2),
        links=links,
    )


def query_p95(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "Query p95",
        "95 of 100 queries complete within this time, with a result or an error, average of 5 minutes. idle: no query "
        "within the last minute. waiting: none completed while a connection was checked out all the time, which may be "
        "one that the service holds for LISTEN or a lock.",
        speed(percentile(0.95, recorded.QUERY, matchers=matchers), queries(matchers)),
        unit="s",
        steps=slo.red_at("query_seconds", 0.2),
        no_value="idle",
        bounds=bounds.QUERY,
        links=links,
    )


CONNECTIONS = (
    timeseries(
        "Application: connection pool",
        "Connections of the application's pools. Waiting callers have none; at the limit they queue.",
        (
            Query(f"sum by (state) ({recorded.CONNECTIONS.of('@pool')})", "{{state}}"),
            Query(f"sum({recorded.CONNECTION_LIMIT.of('@pool')})", "limit"),
            Query("sum(db_pool_pending_checkouts{@pool})", "waiting"),
        ),
        unit="none",
        stacked=True,
        overrides=(*coloured(POOL_COLOURS), *dashed("limit"), *dashed("waiting", colour="red")),
    ),
    timeseries(
        "PostgreSQL: connections",
        "Connections by state. Idle in transaction is the harmful one. The tile at the top shows how many the "
        "server accepts.",
        Query('sum by (state) (pg_stat_activity_count{@data, state!=""}) > 0', "{{state}}"),
        unit="none",
        stacked=True,
        overrides=coloured(
            {
                "active": "orange",
                "idle": "green",
                "idle in transaction": "red",
                "idle in transaction (aborted)": "dark-red",
            }
        ),
        no_value="PostgreSQL does not answer",
    ),
    timeseries(
        "Checkout wait",
        "How long callers wait until the pool has a connection for them, without the time to connect. Percentiles "
        f"within the lowest bound, {bounds.seconds(bounds.CHECKOUT_WAIT[0])}, are flat lines: callers do not wait.",
        average_and_percentiles(recorded.CHECKOUT_WAIT, matchers="@pool"),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        no_value="No checkouts in this range",
    ),
    timeseries(
        "Hold time",
        "How long a connection is checked out of the pool. A few long ones starve the others.",
        average_and_percentiles(recorded.HOLD_TIME, 0.95, matchers="@pool"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value="No checkouts in this range",
    ),
)

P95_BY_NAME = percentile(0.95, recorded.QUERY_BY_NAME, "query_name", matchers="@pool")
BY_NAME = f"sum by (query_name) ({recorded.QUERY_BY_NAME.sum.of('@pool')})"
QUERIES = (
    timeseries(
        "Query time",
        "From sending a statement until its result is ready, as the application measures it.",
        average_and_percentiles(recorded.QUERY, matchers="@pool"),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        no_value="No queries in this range",
    ),
    heatmap(
        "Query time distribution",
        "Queries per second in each bucket of query time.",
        heat(recorded.QUERY, "@pool"),
        unit="s",
    ),
    timeseries(
        "Query time p95 by name",
        "95 of 100 queries of this name are answered within this time, for the five names that take the most time. "
        "Names come from the code, the rest is `other`.",
        Query(f"({P95_BY_NAME}) and on (query_name) {top(5)}", "{{query_name}}"),
        unit="s",
        log=True,
        no_value="No queries in this range",
        legend="right",
    ),
    timeseries(
        "Query load by name",
        "Time spent in queries, for the ten names with the most: 100 % is one connection busy all the time. Tune "
        "the top of this list first.",
        Query(f"{BY_NAME} and on (query_name) {top(10)}", "{{query_name}}"),
        unit="percentunit",
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Queries by name",
        "Queries per second, for the ten names that take the most time.",
        Query(
            f"sum by (query_name) ({recorded.QUERY_BY_NAME.count('@pool')}) and on (query_name) {top(10)}",
            "{{query_name}}",
        ),
        unit="count:q/s",
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Query errors by class",
        "Errors per minute by SQLSTATE class: 08 connection, 23 integrity, 40 deadlock or serialization, 42 wrong SQL, "
        "53 out of resources, 57 cancelled.",
        Query(
            happened(recorded.QUERY_ERRORS, "db_query_errors_total", "sqlstate_class", matchers="@pool"),
            "{{sqlstate_class}}",
        ),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="right",
    ),
)

TRANSACTIONS = (
    timeseries(
        "Application: transactions",
        "Transactions per second as counted by the application when they end. A session that only read ends with a "
        "rollback.",
        Query(transactions("@pool"), "{{outcome}}"),
        unit="count:tps",
        stacked=True,
        overrides=coloured(OUTCOME_COLOURS),
    ),
    timeseries(
        "PostgreSQL: transactions",
        "Transactions per second as counted by the server; rollbacks are shown separately. " + PER_CHECKOUT,
        (Query(f"sum({COMMITS})", "commits"), Query(f"sum({ROLLBACKS})", "rollbacks")),
        unit="count:tps",
        stacked=True,
        overrides=coloured({"commits": "green", "rollbacks": "yellow"}),
        no_value="PostgreSQL does not answer",
    ),
    timeseries(
        "Commit time",
        "How long a COMMIT takes: the time to write the log to disk.",
        average_and_percentiles(recorded.COMMIT, 0.95, matchers="@pool"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value="No commits in this range",
    ),
)

POOL_DETAIL = (
    timeseries(
        "Checkout timeouts",
        "Checkouts per minute that timed out.",
        Query(f"60 * sum by (pool) ({recorded.CHECKOUT_TIMEOUTS.of('@pool')})", "{{pool}}"),
        unit=PER_MINUTE,
        links=(ONE_POOL,),
    ),
    timeseries(
        "Invalidated connections",
        "Connections per minute that the pool discarded, by reason.",
        Query(happened(recorded.INVALIDATIONS, "db_pool_invalidations_total", "kind", matchers="@pool"), "{{kind}}"),
        unit=PER_MINUTE,
    ),
    timeseries(
        "Pool overflow",
        "Connections opened beyond the pool's size; they are closed after use.",
        Query("sum by (pool) (db_pool_overflow{@pool})", "{{pool}}"),
        unit="none",
        links=(ONE_POOL,),
    ),
)
