"""Database: the application's view (pool, queries, transactions) beside PostgreSQL's own."""

from __future__ import annotations

from prometheus.src.settings import SETTINGS

from .common import (
    DATNAME,
    INSTANCE,
    JOB,
    LATENCY_COLOURS,
    OUTCOME_COLOURS,
    POOL,
    POOL_COLOURS,
    SERVER,
    average_and_percentiles,
    dashboard,
    only,
    red_at,
)
from .model import Link, Panel, Query, Row
from .panels import (
    PER_MINUTE,
    Column,
    Steps,
    coloured,
    dashed,
    full,
    halves,
    heatmap,
    quarters,
    stat,
    table,
    thirds,
    timeseries,
)
from .promql import POSTGRESQL, happened, heat, or_named, or_zero, per_minute, quantile, transactions

QUERY = "db_query_duration_seconds"
WAIT = "db_pool_checkout_wait_seconds"
COMMITS = "rate(pg_stat_database_xact_commit{@data}[@rate])"
ROLLBACKS = "rate(pg_stat_database_xact_rollback{@data}[@rate])"
# Reads that found their block in shared memory; a server that reads nothing misses nothing.
CACHE_HITS = (
    "sum(rate(pg_stat_database_blks_hit{@data}[@rate])) / (sum(rate(pg_stat_database_blks_hit{@data}[@rate]))"
    " + sum(rate(pg_stat_database_blks_read{@data}[@rate])) > 0) or 0 * sum(pg_stat_database_blks_hit{@data}) + 1"
)
# PostgreSQL 17 moved the counters of checkpoints from the background writer to the checkpointer.
TIMED = (
    "increase(pg_stat_checkpointer_num_timed_total{@db}[1h])"
    " or increase(pg_stat_bgwriter_checkpoints_timed_total{@db}[1h])"
)
REQUESTED = (
    "increase(pg_stat_checkpointer_num_requested_total{@db}[1h])"
    " or increase(pg_stat_bgwriter_checkpoints_req_total{@db}[1h])"
)


def top(number: int) -> str:
    """The names that took the most time in the time range: the same ones on every panel, whatever the moment."""
    names = "sum by (query_name) (increase(db_query_duration_seconds_sum{@pool}[$__range] @ end()))"
    return f"topk({number}, {names})"


# Why the two counts of transactions never agree.
PER_CHECKOUT = (
    "PostgreSQL counts all clients, the exporter too, and with pool_pre_ping the check of each connection that leaves "
    "the pool: about twice what the application counts."
)
NO_ANSWER = "no answer"  # of the exporter, or of PostgreSQL to it
VARIABLES = (JOB, INSTANCE, POOL, SERVER, DATNAME)
ONE_DATABASE = only("Only ${__field.labels.datname}", "Database", VARIABLES, DATNAME, "__field.labels.datname")
ONE_POOL = only("Only ${__field.labels.pool}", "Database", VARIABLES, POOL, "__field.labels.pool")


def pool_use(matchers: str) -> str:
    """Share of its connections in use, of the fullest pool: an average would hide the one that is exhausted."""
    used = f'sum without (state) (db_pool_connections{{{matchers}, state="used"}})'
    return or_zero(f"max({used} / (db_pool_connections_max{{{matchers}}} > 0))")


def pool_in_use(matchers: str, *links: Link) -> Panel:
    return stat(
        "Pool in use",
        "Connections that are checked out, of all that the pool may open: of the fullest of the application's pools.",
        Query(pool_use(matchers)),
        unit="percentunit",
        decimals=0,
        steps=red_at("pool_used_ratio", 0.8),
        highest=1,
        links=links,
    )


def query_p95(matchers: str, *links: Link) -> Panel:
    return stat(
        "Query p95",
        "95 of 100 queries are answered within this time.",
        Query(quantile(0.95, QUERY, matchers=matchers)),
        unit="s",
        steps=red_at("query_seconds", 0.2),
        no_value="idle",
        links=links,
    )


STRIP = tuple(
    panel.sized(3)
    for panel in (
        pool_in_use("@pool"),
        stat(
            "Pool wait p95",
            "95 of 100 callers get a connection from the pool within this time.",
            Query(quantile(0.95, WAIT, matchers="@pool")),
            unit="s",
            steps=red_at("pool_wait_seconds", 0.2),
            no_value="idle",
        ),
        query_p95("@pool"),
        stat(
            "Tx rate",
            f"Commits and rollbacks per second, as PostgreSQL counts them. {PER_CHECKOUT}",
            Query(f"sum({COMMITS}) + sum({ROLLBACKS})"),
            unit="count:tx/s",
            no_value=NO_ANSWER,
            decimals=1,
        ),
        stat(
            "Connections",
            "Connections to PostgreSQL, of all that it accepts: of the fullest server.",
            Query(
                "max(sum by (instance) (pg_stat_activity_count{@db})"
                " / sum by (instance) (pg_settings_max_connections{@db}))"
            ),
            unit="percentunit",
            no_value=NO_ANSWER,
            decimals=0,
            steps=Steps(
                SETTINGS.thresholds["connections_high_ratio"], SETTINGS.thresholds["connections_exhausted_ratio"]
            ),
            highest=1,
        ),
        stat(
            "Cache hits",
            "Reads that found their block in PostgreSQL's memory. A working set that fits is above 99 %.",
            Query(CACHE_HITS),
            unit="percentunit",
            no_value=NO_ANSWER,
            decimals=1,
            steps=red_at("cache_hit_ratio", 1.05),
            highest=1,
        ),
        stat(
            "Oldest tx",
            "Age of the oldest open transaction. An old one keeps dead rows from being cleaned up and may hold locks.",
            Query("max(pg_stat_activity_max_tx_duration{@data})"),
            unit="s",
            no_value=NO_ANSWER,
            steps=red_at("transaction_seconds", 0.2),
        ),
        stat(
            "Deadlocks",
            "Deadlocks in the time range; PostgreSQL ends one of the two transactions.",
            Query(f"sum(increase(pg_stat_database_deadlocks{{@data}}[$__range])) and on () {POSTGRESQL}", instant=True),
            unit="none",
            no_value=NO_ANSWER,
            decimals=0,
            steps=Steps(1, 3),
            sparkline=False,
        ),
    )
)

CONNECTIONS = (
    timeseries(
        "Application: connection pool",
        "Connections of the application's pools. Callers that wait have none; at the limit they queue.",
        (
            Query("sum by (state) (db_pool_connections{@pool})", "{{state}}"),
            Query("sum(db_pool_connections_max{@pool})", "limit"),
            Query("sum(db_pool_pending_checkouts{@pool})", "waiting"),
        ),
        unit="none",
        stacked=True,
        overrides=(*coloured(POOL_COLOURS), *dashed("limit"), *dashed("waiting", colour="red")),
        legend="right",
    ),
    timeseries(
        "PostgreSQL: connections",
        "Connections by what they do. Idle in transaction is what hurts. How many the server accepts is in the strip.",
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
        legend="right",
    ),
    timeseries(
        "Wait for a connection",
        "How long callers wait until the pool has a connection for them, without the time to connect.",
        average_and_percentiles(WAIT, matchers="@pool"),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        no_value="Nobody asked for a connection in this range",
        legend="right",
    ),
    timeseries(
        "Connection use",
        "How long a connection is out of the pool. Long use by few callers starves the rest.",
        average_and_percentiles("db_pool_connection_use_seconds", 0.95, matchers="@pool"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        legend="right",
        no_value="Nobody asked for a connection in this range",
    ),
)

QUERIES = (
    timeseries(
        "Query time",
        "From sending a statement until its result is ready, as the application feels it.",
        average_and_percentiles(QUERY, matchers="@pool"),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        no_value="No queries in this range",
        legend="right",
    ),
    heatmap(
        "Query time spread",
        "Queries per second in each bucket of query time.",
        heat(QUERY, "@pool"),
        unit="s",
    ),
    timeseries(
        "Query time p95 by name",
        "95 of 100 queries of this name are answered within this time, for the five names that take the most time. "
        "Names come from the code, the rest is `other`.",
        Query(
            f"({quantile(0.95, QUERY, 'query_name', matchers='@pool')}) and on (query_name) {top(5)}", "{{query_name}}"
        ),
        unit="s",
        log=True,
        no_value="No queries in this range",
        legend="right",
    ),
    timeseries(
        "Where the time goes",
        "Time that queries take, by name, of the ten that take the most: 100 % is one connection busy all the time. "
        "The top of this list is where tuning pays.",
        Query(f"sum by (query_name) (rate({QUERY}_sum{{@pool}}[@rate])) and {top(10)}", "{{query_name}}"),
        unit="percentunit",
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Queries by name",
        "Queries per second, of the ten names that take the most time.",
        Query(f"sum by (query_name) (rate({QUERY}_count{{@pool}}[@rate])) and {top(10)}", "{{query_name}}"),
        unit="count:q/s",
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Query errors",
        "Errors per minute by SQLSTATE class: 08 connection, 23 integrity, 40 deadlock or serialisation, 42 wrong SQL, "
        "53 out of resources, 57 cancelled.",
        Query(happened("db_query_errors_total", "sqlstate_class", matchers="@pool"), "{{sqlstate_class}}"),
        unit=PER_MINUTE,
        stacked=True,
        shades="red",
        legend="right",
    ),
)

TRANSACTIONS = (
    timeseries(
        "Application: transactions",
        "Transactions per second as the application ends them. A session that only read ends as a rollback.",
        Query(transactions("@pool"), "{{outcome}}"),
        unit="count:tx/s",
        stacked=True,
        overrides=coloured(OUTCOME_COLOURS),
        legend="names",
    ),
    timeseries(
        "PostgreSQL: transactions",
        "Transactions per second as the server counts them. " + PER_CHECKOUT,
        (Query(f"sum({COMMITS})", "commits"), Query(f"sum({ROLLBACKS})", "rollbacks")),
        unit="count:tx/s",
        stacked=True,
        overrides=coloured({"commits": "green", "rollbacks": "yellow"}),
        legend="names",
    ),
    timeseries(
        "Commit time",
        "How long a COMMIT takes: the time to write the log to disk.",
        average_and_percentiles("db_commit_duration_seconds", 0.95, matchers="@pool"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value="No commits in this range",
        legend="names",
    ),
)

LOCKS = "sum by (mode) (pg_locks_count{@data})"
HELD = "max by (mode) (max_over_time(pg_locks_count{@data}[$__range] @ end())) > 0"
SERVER_ROW = (
    timeseries(
        "Rows",
        "Rows per second by what was done to them. Far more returned than fetched means whole tables are read.",
        tuple(
            Query(f"sum(rate(pg_stat_database_tup_{kind}{{@data}}[@rate]))", kind)
            for kind in ("returned", "fetched", "inserted", "updated", "deleted")
        ),
        unit="count:rows/s",
        legend="names",
    ),
    timeseries(
        "Cache hits by database",
        "Reads that found their block in PostgreSQL's memory; the rest came from the system's cache or a disk.",
        Query(
            "sum by (datname) (rate(pg_stat_database_blks_hit{@data}[@rate]))"
            " / (sum by (datname) (rate(pg_stat_database_blks_hit{@data}[@rate]))"
            " + sum by (datname) (rate(pg_stat_database_blks_read{@data}[@rate])) > 0)"
            " or sum by (datname) (pg_stat_database_blks_hit{@data}) * 0 + 1",
            "{{datname}}",
        ),
        unit="percentunit",
        lowest=None,
        highest=1,
        soft_lowest=0.9,
        legend="names",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Locks",
        "Locks that are held, by mode, of the modes that occurred in the time range. Exclusive ones block others.",
        Query(or_named(f"{LOCKS} and on (mode) ({HELD})", "mode", HELD, source=POSTGRESQL), "{{mode}}"),
        unit="none",
        stacked=True,
        legend="names",
    ),
    timeseries(
        "Deadlocks and conflicts",
        "Deadlocks, and queries cancelled because of recovery on a replica, per minute.",
        (
            Query(per_minute("pg_stat_database_deadlocks", matchers="@data"), "deadlocks"),
            Query(per_minute("pg_stat_database_conflicts", matchers="@data"), "conflicts"),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"deadlocks": "red", "conflicts": "orange"}),
        legend="names",
    ),
    timeseries(
        "Temporary files",
        "Bytes per second written to disk because sorting or hashing did not fit into work_mem.",
        Query("sum by (datname) (rate(pg_stat_database_temp_bytes{@data}[@rate]))", "{{datname}}"),
        unit="Bps",
        legend="names",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Checkpoints",
        "Checkpoints in the hour before. Many requested ones mean that max_wal_size is too small for what is written.",
        (Query(f"sum({TIMED})", "timed"), Query(f"sum({REQUESTED})", "requested")),
        unit="none",
        overrides=coloured({"timed": "green", "requested": "orange"}),
        legend="names",
    ),
    timeseries(
        "Longest transaction",
        "Age of the oldest open transaction, by what it does now. Nothing open is zero.",
        Query(
            'max by (state) (pg_stat_activity_max_tx_duration{@data, state=~"active|idle in transaction.*"})',
            "{{state}}",
        ),
        unit="s",
        legend="names",
    ),
)

STORAGE = (
    timeseries(
        "Database size",
        "Size of each database on disk.",
        Query("sum by (datname) (pg_database_size_bytes{@data})", "{{datname}}"),
        unit="bytes",
        legend="right",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Log size",
        "Size of the write-ahead log that is kept. It grows when a replica or an archive lags.",
        Query("sum by (instance) (pg_wal_size_bytes{@db})", "{{instance}}"),
        unit="bytes",
        legend="right",
    ),
    timeseries(
        "Dead rows",
        "Rows that were deleted or replaced and wait to be cleaned up, of the ten worst tables.",
        Query("topk(10, sum by (relname) (pg_stat_user_tables_n_dead_tup{@data}))", "{{relname}}"),
        unit="short",
        no_value="No tables",
        legend="right",
    ),
    timeseries(
        "Rows read by whole-table scans",
        "Rows per second read without an index, of the ten worst tables. Fine for small tables only.",
        Query("topk(10, sum by (relname) (rate(pg_stat_user_tables_seq_tup_read{@data}[@rate])))", "{{relname}}"),
        unit="count:rows/s",
        no_value="No tables",
        legend="right",
    ),
)

STATEMENT = "sum by (datname, user, queryid)"
STATEMENTS = (
    table(
        "Statements that take the most time",
        "The ten statements that took the most time of the server in the time range (pg_stat_statements). The text "
        "of one: SELECT query FROM pg_stat_statements WHERE queryid = …",
        (
            Query(
                f"topk(10, {STATEMENT} (increase(pg_stat_statements_seconds_total{{@data}}[$__range])))",
                instant=True,
                format="table",
            ),
            Query(
                f"{STATEMENT} (increase(pg_stat_statements_calls_total{{@data}}[$__range]))"
                f" and topk(10, {STATEMENT} (increase(pg_stat_statements_seconds_total{{@data}}[$__range])))",
                instant=True,
                format="table",
            ),
            Query(
                f"{STATEMENT} (increase(pg_stat_statements_seconds_total{{@data}}[$__range]))"
                f" / ({STATEMENT} (increase(pg_stat_statements_calls_total{{@data}}[$__range])) > 0)"
                f" and topk(10, {STATEMENT} (increase(pg_stat_statements_seconds_total{{@data}}[$__range])))",
                instant=True,
                format="table",
            ),
            Query(
                f"{STATEMENT} (increase(pg_stat_statements_rows_total{{@data}}[$__range]))"
                f" and topk(10, {STATEMENT} (increase(pg_stat_statements_seconds_total{{@data}}[$__range])))",
                instant=True,
                format="table",
            ),
        ),
        unit="short",
        columns=(
            Column("queryid", "Query id"),
            Column("datname", "Database", width=150),
            Column("user", "Role", width=150),
            Column("Value #A", "Total time", unit="s", width=220, bar=True),
            Column("Value #B", "Calls", unit="short", width=150, decimals=0),
            Column(
                "Value #C",
                "Time per call",
                unit="s",
                width=150,
                steps=red_at("query_seconds", 0.2),
            ),
            Column("Value #D", "Rows", unit="short", width=150, decimals=0),
        ),
        sort_by=(("Total time", True),),
    ),
)

POOL_DETAIL = (
    timeseries(
        "Callers that gave up",
        "Checkouts per minute that ran into the pool's timeout.",
        Query(per_minute("db_pool_checkout_timeouts_total", "pool", matchers="@pool"), "{{pool}}"),
        unit=PER_MINUTE,
        legend="names",
        links=(ONE_POOL,),
    ),
    timeseries(
        "Connections thrown away",
        "Connections per minute that the pool discarded, by why.",
        Query(happened("db_pool_invalidations_total", "kind", matchers="@pool"), "{{kind}}"),
        unit=PER_MINUTE,
        legend="names",
    ),
    timeseries(
        "Connections beyond the pool's size",
        "Connections that were opened on top of the pool's size and are closed after use.",
        Query("sum by (pool) (db_pool_overflow{@pool})", "{{pool}}"),
        unit="none",
        legend="names",
        links=(ONE_POOL,),
    ),
)

DASHBOARD = dashboard(
    "Database",
    "The application's pool and queries beside PostgreSQL's own view of connections, transactions, locks and cache.",
    variables=VARIABLES,
    rows=(
        Row("", STRIP),
        Row("Connections", halves(CONNECTIONS, 7)),
        Row("Queries", (*halves(QUERIES[:2], 8), *halves(QUERIES[2:], 9))),
        Row("Transactions", thirds(TRANSACTIONS, 7)),
        Row("PostgreSQL", (*thirds(SERVER_ROW[:3], 7), *quarters(SERVER_ROW[3:], 7))),
        Row("Pool in detail", thirds(POOL_DETAIL, 7), collapsed=True),
        Row("Storage and tables", halves(STORAGE, 7), collapsed=True),
        Row("Statements", full(STATEMENTS, 12), collapsed=True),
    ),
)
