"""Database: the application's view (pool, queries, transactions) beside PostgreSQL's own."""

from __future__ import annotations

from prometheus.src import recorded
from prometheus.src.recorded import exported

from . import bounds, slo
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
    service_stat,
    up_of,
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
    sixths,
    stat,
    table,
    thirds,
    timeseries,
    values,
)
from .promql import POSTGRESQL, happened, heat, moved, occurring, or_failing, or_named, or_zero, percentile

NO_ANSWER = "no answer"  # of the exporter, or of PostgreSQL to it
VARIABLES = (JOB, INSTANCE, POOL, SERVER, DATNAME)
ONE_DATABASE = only("Only ${__field.labels.datname}", "Database", VARIABLES, DATNAME, "__field.labels.datname")
ONE_POOL = only("Only ${__field.labels.pool}", "Database", VARIABLES, POOL, "__field.labels.pool")
# Why the two counts of transactions never agree.
PER_CHECKOUT = (
    "PostgreSQL counts all clients, the exporter too, and with pool_pre_ping the check of each connection that leaves "
    "the pool: about twice what the application counts."
)
UP = "on (instance) pg_up{@db} == 1"


def server_rate(counter: str, matchers: str = "@data") -> str:
    """Events per second of a counter of the server, while PostgreSQL answers: five minutes outlive their source."""
    return f"rate({exported(counter)}{{{matchers}}}[5m]) and {UP}"


COMMITS = server_rate("pg_stat_database_xact_commit")
ROLLBACKS = server_rate("pg_stat_database_xact_rollback")
HITS = server_rate("pg_stat_database_blks_hit")
READS = server_rate("pg_stat_database_blks_read")


def hit_ratio(*by: str) -> str:
    """Reads that found their block in shared memory; a server that reads nothing misses nothing."""
    label = f" by ({', '.join(by)})" if by else ""
    hits, reads = f"sum{label} ({HITS})", f"sum{label} ({READS})"
    return f"{hits} / ({hits} + {reads} > 0) or 0 * {hits} + 1"


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
    times = f'avg_over_time({recorded.QUERY.sum.name}{{job=~"$job", pool=~"$pool"}}[$__range] @ end())'
    return f"topk({number}, sum by (query_name) ({times}))"


def transactions(matchers: str) -> str:
    """Transactions per second by outcome, of those that occurred."""
    kinds = moved(recorded.TRANSACTIONS, "db_transactions_total", matchers)
    return occurring(f"sum by (outcome) ({recorded.TRANSACTIONS.of(matchers)})", kinds, "outcome")


def postgresql_up(matchers: str, *links: Link) -> Panel:
    exporter_down = f"up == 0 and on (job, instance) last_over_time(pg_up{{{matchers}}}[30d])"
    return up_of(
        "Postgres",
        "Servers that answer their exporter, of those that did within the last 30 days. One whose exporter does not "
        "answer Prometheus counts as down.",
        f"(max by (instance) (pg_up{{{matchers}}}) or max by (instance) ({exporter_down}))",
        "none known",
        *links,
    )


SQLSTATE = 'sqlstate_class!="23"'  # a violated constraint is no failure


def pool_use(matchers: str) -> str:
    """Share of its connections in use, of the fullest pool: an average would hide the one that is exhausted."""
    used = f'sum without (state) (db_pool_connections{{{matchers}, state="used"}})'
    return or_zero(f"max({used} / (db_pool_connections_max{{{matchers}}} > 0))")


def outcomes(matchers: str) -> tuple[str, str]:
    """Selectors of queries, connections and commits that failed, and of queries that did not."""
    return f"db_query_errors_total{{{matchers}, {SQLSTATE}}}", f"db_query_duration_seconds_count{{{matchers}}}"


def pool_in_use(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "Pool in use",
        "Connections that are checked out, of all that the pool may open: of the fullest of the application's pools.",
        or_failing(pool_use(matchers), *outcomes(matchers)),  # a pool without connections is not an idle one
        unit="percentunit",
        decimals=0,
        steps=slo.red_at("pool_used_ratio", 0.8),
        links=links,
    )


def query_errors(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "SQL errors",
        "Queries, connections and commits that failed per minute, as the application sees them, average of 5 minutes. "
        "Without SQLSTATE class 23: a violated constraint is how applications learn that a name is taken.",
        or_zero(f"60 * sum({recorded.QUERY_ERRORS.of(f'{matchers}, {SQLSTATE}')})"),
        unit=PER_MINUTE,
        decimals=1,
        steps=Steps(0.1, 2),
        links=links,
    )


def query_p95(matchers: str, *links: Link) -> Panel:
    return service_stat(
        "Query p95",
        "95 of 100 queries are answered within this time, average of 5 minutes.",
        or_failing(
            percentile(0.95, recorded.QUERY, matchers=matchers),
            *outcomes(matchers),
        ),
        unit="s",
        steps=slo.red_at("query_seconds", 0.2),
        no_value="idle",
        bounds=bounds.QUERY,
        links=links,
    )


STRIP = (
    postgresql_up("@db"),
    query_errors("@pool"),
    query_p95("@pool"),
    pool_in_use("@pool"),
    service_stat(
        "Wait p95",
        "95 of 100 checkouts get a connection from the pool within this time, average of 5 minutes.",
        or_failing(percentile(0.95, recorded.CHECKOUT_WAIT, matchers="@pool"), *outcomes("@pool")),
        unit="s",
        steps=slo.red_at("pool_wait_seconds", 0.2),
        no_value="no checkouts",
        bounds=bounds.CHECKOUT_WAIT,
    ),
    stat(
        "TPS",
        f"Transactions per second, commits and rollbacks, as PostgreSQL counts them. {PER_CHECKOUT}",
        f"sum({COMMITS}) + sum({ROLLBACKS})",
        unit="count:tps",
        no_value=NO_ANSWER,
        decimals=1,
    ),
    stat(
        "Backends",
        "Connections to PostgreSQL, of all that it accepts: of the fullest server.",
        "max(sum by (instance) (pg_stat_activity_count{@db}) / sum by (instance) (pg_settings_max_connections{@db}))",
        unit="percentunit",
        no_value=NO_ANSWER,
        decimals=0,
        steps=Steps(slo.threshold("connections_high_ratio"), slo.threshold("connections_exhausted_ratio")),
    ),
    stat(
        "Cache hits",
        "Buffer cache hit ratio: reads that found their block in PostgreSQL's memory. A working set that fits is "
        "above 99 %.",
        hit_ratio(),
        unit="percentunit",
        no_value=NO_ANSWER,
        decimals=1,
        steps=slo.red_at("cache_hit_ratio", 1.05),
    ),
    stat(
        "Longest tx",
        "Age of the longest open transaction. An old one keeps dead tuples from being vacuumed and may hold locks.",
        "max(pg_stat_activity_max_tx_duration{@data})",
        unit="s",
        no_value=NO_ANSWER,
        steps=slo.red_at("transaction_seconds", 0.2),
    ),
    stat(
        "Blocked",
        "Queries that wait for a lock of another transaction.",
        or_zero('sum(pg_stat_activity_count{@data, wait_event_type="Lock"})', POSTGRESQL),
        unit="none",
        no_value=NO_ANSWER,
        decimals=0,
        steps=Steps(1, 10),
    ),
    stat(
        "Deadlocks",
        "Deadlocks in the time range; PostgreSQL ends one of the two transactions.",
        f"sum(increase({exported('pg_stat_database_deadlocks')}{{@data}}[$__range])) and on () {POSTGRESQL}",
        unit="none",
        no_value=NO_ANSWER,
        decimals=0,
        steps=Steps(1, 3),
    ),
    stat(
        "Uptime",
        "Since the start of the PostgreSQL server that started last.",
        "time() - max(pg_postmaster_start_time_seconds{@db} and on (instance) pg_up{@db} == 1)",
        unit="s",
        no_value=NO_ANSWER,
        decimals=1,
    ),
)

CONNECTIONS = (
    timeseries(
        "Application: connection pool",
        "Connections of the application's pools. Callers that wait have none; at the limit they queue.",
        (
            Query(f"sum by (state) ({recorded.CONNECTIONS.of('@pool')})", "{{state}}"),
            Query(f"sum({recorded.CONNECTION_LIMIT.of('@pool')})", "limit"),
            Query("sum(db_pool_pending_checkouts{@pool})", "waiting"),
        ),
        unit="none",
        stacked=True,
        overrides=(*coloured(POOL_COLOURS), *dashed("limit"), *dashed("waiting", colour="red")),
        legend="right",
    ),
    timeseries(
        "PostgreSQL: connections",
        "Connections by state. Idle in transaction is what hurts. How many the server accepts is in the strip.",
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
        no_value="PostgreSQL does not answer",
    ),
    timeseries(
        "Checkout wait",
        "How long callers wait until the pool has a connection for them, without the time to connect.",
        average_and_percentiles(recorded.CHECKOUT_WAIT, matchers="@pool"),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        no_value="No checkouts in this range",
        legend="right",
    ),
    timeseries(
        "Hold time",
        "How long a connection is checked out of the pool. A few that hold theirs for long starve the rest.",
        average_and_percentiles(recorded.HOLD_TIME, 0.95, matchers="@pool"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        legend="right",
        no_value="No checkouts in this range",
    ),
)

BY_NAME = f"sum by (query_name) ({recorded.QUERY.sum.of('@pool')})"
QUERIES = (
    timeseries(
        "Query time",
        "From sending a statement until its result is ready, as the application measures it.",
        average_and_percentiles(recorded.QUERY, matchers="@pool"),
        unit="s",
        log=True,
        overrides=coloured(LATENCY_COLOURS),
        no_value="No queries in this range",
        legend="right",
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
        Query(
            f"({percentile(0.95, recorded.QUERY, 'query_name', matchers='@pool')}) and on (query_name) {top(5)}",
            "{{query_name}}",
        ),
        unit="s",
        log=True,
        no_value="No queries in this range",
        legend="right",
    ),
    timeseries(
        "Query load by name",
        "Time that queries take, of the ten names that take the most: 100 % is one connection busy all the time. The "
        "top of this list is where tuning pays.",
        Query(f"{BY_NAME} and on (query_name) {top(10)}", "{{query_name}}"),
        unit="percentunit",
        stacked=True,
        legend="right",
    ),
    timeseries(
        "Queries by name",
        "Queries per second, of the ten names that take the most time.",
        Query(f"sum by (query_name) ({recorded.QUERY.count('@pool')}) and on (query_name) {top(10)}", "{{query_name}}"),
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
        "Transactions per second as the application ends them. A session that only read ends as a rollback.",
        Query(transactions("@pool"), "{{outcome}}"),
        unit="count:tps",
        stacked=True,
        overrides=coloured(OUTCOME_COLOURS),
        legend="names",
    ),
    timeseries(
        "PostgreSQL: transactions",
        "Transactions per second as the server counts them, rolled back ones apart. " + PER_CHECKOUT,
        (Query(f"sum({COMMITS})", "commits"), Query(f"sum({ROLLBACKS})", "rollbacks")),
        unit="count:tps",
        stacked=True,
        overrides=coloured({"commits": "green", "rollbacks": "yellow"}),
        legend="names",
        no_value="PostgreSQL does not answer",
    ),
    timeseries(
        "Commit time",
        "How long a COMMIT takes: the time to write the log to disk.",
        average_and_percentiles(recorded.COMMIT, 0.95, matchers="@pool"),
        unit="s",
        overrides=coloured(LATENCY_COLOURS),
        no_value="No commits in this range",
        legend="names",
    ),
)

LOCKS = "sum by (mode) (pg_locks_count{@data})"
HELD = "max by (mode) (max_over_time(pg_locks_count{@data}[$__range] @ end())) > 0"
WAITING = 'pg_stat_activity_count{@data, state="active", wait_event_type!~"|Client|Activity"}'
WAITED = f"last_over_time({WAITING}[$__range] @ end())"
SERVER_ROW = (
    timeseries(
        "Tuples",
        "Tuples (rows) per second by what was done to them. Far more returned than fetched means whole tables are "
        "read.",
        tuple(
            Query(f"sum({server_rate(f'pg_stat_database_tup_{kind}')})", kind)
            for kind in ("returned", "fetched", "inserted", "updated", "deleted")
        ),
        unit="count:tuples/s",
        legend="names",
    ),
    timeseries(
        "Buffer cache hit ratio",
        "Reads that found their block in PostgreSQL's memory; the rest came from the system's cache or a disk.",
        Query(hit_ratio("datname"), "{{datname}}"),
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
            Query(f"60 * sum({server_rate('pg_stat_database_deadlocks')})", "deadlocks"),
            Query(f"60 * sum({server_rate('pg_stat_database_conflicts')})", "conflicts"),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"deadlocks": "red", "conflicts": "orange"}),
        legend="names",
    ),
    timeseries(
        "Temporary files",
        "Bytes per second written to disk because sorting or hashing did not fit into work_mem.",
        Query(f"sum by (datname) ({server_rate('pg_stat_database_temp_bytes')})", "{{datname}}"),
        unit="Bps",
        legend="names",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Checkpoints, 1 hour",
        "Checkpoints in the hour before. Many requested ones mean that max_wal_size is too small for what is written.",
        (Query(f"sum({TIMED})", "timed"), Query(f"sum({REQUESTED})", "requested")),
        unit="none",
        overrides=coloured({"timed": "green", "requested": "orange"}),
        legend="names",
    ),
    timeseries(
        "Longest transaction",
        "Age of the longest open transaction, by what it does now. Nothing open is zero.",
        Query(
            'max by (state) (pg_stat_activity_max_tx_duration{@data, state=~"active|idle in transaction.*"})',
            "{{state}}",
        ),
        unit="s",
        legend="names",
    ),
    timeseries(
        "Queries that wait",
        "Sessions with a running query that wait, by what for: Lock is another transaction, IO a disk, LWLock memory "
        "that is shared. Client is no wait of the server and left out.",
        Query(
            or_named(f"sum by (wait_event_type) ({WAITING})", "wait_event_type", WAITED, source=POSTGRESQL),
            "{{wait_event_type}}",
        ),
        unit="none",
        stacked=True,
        overrides=coloured({"Lock": "red", "IO": "orange", "LWLock": "yellow"}),
        legend="names",
    ),
)

ROLE = values({"0": ("primary", "green"), "1": ("replica", "blue")})
WRAPAROUND = 2_000_000_000  # transactions; PostgreSQL stops taking writes 3 million before 2^31
SERVERS = (
    table(
        "Servers",
        "Every PostgreSQL server at the end of the time range: since when it runs, its role, and the settings that "
        "matter most. Memory per query is work_mem: each sort or hash may take as much.",
        tuple(
            Query(f"max by (instance) ({expr})", instant=True, format="table")
            for expr in (
                "time() - pg_postmaster_start_time_seconds{@db}",
                "pg_replication_is_replica{@db}",
                "pg_replication_lag_seconds{@db}",
                "pg_settings_server_version_num{@db}",
                "pg_settings_max_connections{@db}",
                "pg_settings_shared_buffers_bytes{@db}",
                "pg_settings_work_mem_bytes{@db}",
                "pg_settings_max_wal_size_bytes{@db}",
            )
        ),
        unit="short",
        columns=(
            Column("instance", "Exporter"),
            Column("Value #A", "Uptime", unit="s", width=110),
            Column("Value #B", "Role", width=100, mappings=(ROLE,)),
            Column("Value #C", "Replication lag", unit="s", width=130, steps=Steps(10, 60)),
            Column("Value #D", "Version", unit="none", width=100),
            Column("Value #E", "Max. connections", unit="none", width=140),
            Column("Value #F", "Shared buffers", unit="bytes", width=130),
            Column("Value #G", "Memory per query", unit="bytes", width=145),
            Column("Value #H", "Max. WAL size", unit="bytes", width=130),
        ),
        no_value="PostgreSQL does not answer",
    ),
)

REPLICATION = (
    timeseries(
        "Replication lag",
        "How far a replica is behind its primary. A primary has none.",
        Query("max by (instance) (pg_replication_lag_seconds{@db})", "{{instance}}"),
        unit="s",
        legend="names",
        no_value="PostgreSQL does not answer",
    ),
    timeseries(
        "Replication slots",
        "Bytes of WAL that each replication slot keeps from being removed. A slot without a consumer fills the disk.",
        Query(
            or_named(
                "max by (slot_name) (pg_replication_slot_slot_current_wal_lsn{@db}"
                " - on (instance, slot_name) pg_replication_slot_slot_confirmed_flush_lsn{@db})",
                "slot_name",
                "pg_replication_slot_slot_is_active{@db}",
                source=POSTGRESQL,
            ),
            "{{slot_name}}",
        ),
        unit="bytes",
        legend="names",
    ),
    timeseries(
        "WAL archiving",
        "Segments of the write-ahead log archived and failed per minute. None where archive_mode is off.",
        (
            Query(f"60 * sum({server_rate('pg_stat_archiver_archived_count', '@db')})", "archived"),
            Query(f"60 * sum({server_rate('pg_stat_archiver_failed_count', '@db')})", "failed"),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"archived": "green", "failed": "red"}),
        legend="names",
    ),
    timeseries(
        "WAL size",
        "Size of the write-ahead log that is kept. It grows when a replica or an archive lags.",
        Query("sum by (instance) (pg_wal_size_bytes{@db})", "{{instance}}"),
        unit="bytes",
        legend="names",
    ),
)

STORAGE = (
    timeseries(
        "Database size",
        "Size of each database on disk.",
        Query("sum by (datname) (pg_database_size_bytes{@data})", "{{datname}}"),
        unit="bytes",
        legend="names",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Transaction ID wraparound",
        "Share of the transaction IDs used since the oldest frozen one. Autovacuum freezes from about 10 % on; near "
        "100 % PostgreSQL takes no more writes.",
        Query(
            f"max by (datname) (pg_database_wraparound_age_datfrozenxid_seconds{{@data}}) / {WRAPAROUND}",
            "{{datname}}",
        ),
        unit="percentunit",
        soft_highest=0.15,
        legend="names",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Dead tuples",
        "Tuples that were deleted or replaced and wait to be vacuumed, of the ten worst tables.",
        Query("topk(10, sum by (relname) (pg_stat_user_tables_n_dead_tup{@data}))", "{{relname}}"),
        unit="short",
        no_value="No tables",
        legend="names",
    ),
    timeseries(
        "Sequential scans",
        "Tuples per second read without an index, of the ten worst tables. Fine for small tables only.",
        Query(
            f"topk(10, sum by (relname) ({server_rate('pg_stat_user_tables_seq_tup_read')}))",
            "{{relname}}",
        ),
        unit="count:tuples/s",
        no_value="No tables",
        legend="names",
    ),
)


def _since(*times: str) -> str:
    """Seconds since the latest of some times; nothing for a table where it never happened (0)."""
    latest = " or ".join(f"pg_stat_user_tables_last_{time}{{@data}}" for time in times)
    return f"time() - (max by (datname, relname) ({latest}) > 0)"


TABLES = (
    table(
        "Tables",
        "Every table at the end of the time range: dead tuples, since when it was vacuumed and analyzed (by hand or by "
        "autovacuum; `-` is never), and how it is read.",
        tuple(
            Query(expr, instant=True, format="table")
            for expr in (
                "sum by (datname, relname) (pg_stat_user_tables_size_bytes{@data})",
                "sum by (datname, relname) (pg_stat_user_tables_n_live_tup{@data})",
                "sum by (datname, relname) (pg_stat_user_tables_n_dead_tup{@data})",
                _since("vacuum", "autovacuum"),
                _since("analyze", "autoanalyze"),
                "sum by (datname, relname) (pg_stat_user_tables_seq_scan{@data})",
                "sum by (datname, relname) (pg_stat_user_tables_idx_scan{@data})",
            )
        ),
        unit="short",
        columns=(
            Column("datname", "Database", width=120),
            Column("relname", "Table"),
            Column("Value #A", "Size", unit="bytes", width=110, bar=True),
            Column("Value #B", "Live tuples", unit="short", width=110),
            Column("Value #C", "Dead tuples", unit="short", width=110),
            Column("Value #D", "Vacuumed before", unit="s", width=140),
            Column("Value #E", "Analyzed before", unit="s", width=140),
            Column("Value #F", "Sequential scans", unit="short", width=135),
            Column("Value #G", "Index scans", unit="short", width=110),
        ),
        sort_by=(("Size", True),),
        no_value="No tables",
    ),
)

STATEMENT = "sum by (datname, user, queryid)"
SECONDS = f"{STATEMENT} (increase(pg_stat_statements_seconds_total{{@data}}[$__range]))"
NUMBER = f"{STATEMENT} (increase(pg_stat_statements_calls_total{{@data}}[$__range]))"
TUPLES = f"{STATEMENT} (increase(pg_stat_statements_rows_total{{@data}}[$__range]))"
TEXT = "max by (queryid, query) (pg_stat_statements_query_id{@db})"
STATEMENTS = (
    table(
        "Statements that take the most time",
        "The ten statements that took the most time of the server in the time range (pg_stat_statements). Their text "
        "is shown where postgres_exporter 0.18 or newer exports it (--collector.stat_statements.include_query); "
        "else: SELECT query FROM pg_stat_statements WHERE queryid = …",
        tuple(
            Query(expr, instant=True, format="table")
            for expr in (
                f"topk(10, {SECONDS}) * on (queryid) group_left (query) {TEXT}"
                f" or (topk(10, {SECONDS}) unless on (queryid) {TEXT})",
                f"{NUMBER} and topk(10, {SECONDS})",
                f"{SECONDS} / ({NUMBER} > 0) and topk(10, {SECONDS})",
                f"{TUPLES} and topk(10, {SECONDS})",
            )
        ),
        unit="short",
        columns=(
            Column("queryid", "Query id", width=180),
            Column("query", "Statement"),
            Column("datname", "Database", width=110),
            Column("user", "Role", width=150),
            Column("Value #A", "Total time", unit="s", width=190, bar=True),
            Column("Value #B", "Calls", unit="short", width=100, decimals=0),
            Column("Value #C", "Time per call", unit="s", width=120, steps=slo.red_at("query_seconds", 0.2)),
            Column("Value #D", "Rows", unit="short", width=100, decimals=0),
        ),
        sort_by=(("Total time", True),),
        no_value="No statements in this range",
    ),
)

POOL_DETAIL = (
    timeseries(
        "Checkout timeouts",
        "Checkouts per minute that ran into the pool's timeout.",
        Query(f"60 * sum by (pool) ({recorded.CHECKOUT_TIMEOUTS.of('@pool')})", "{{pool}}"),
        unit=PER_MINUTE,
        legend="names",
        links=(ONE_POOL,),
    ),
    timeseries(
        "Invalidated connections",
        "Connections per minute that the pool discarded, by reason.",
        Query(happened(recorded.INVALIDATIONS, "db_pool_invalidations_total", "kind", matchers="@pool"), "{{kind}}"),
        unit=PER_MINUTE,
        legend="names",
    ),
    timeseries(
        "Pool overflow",
        "Connections that were opened on top of the pool's size and are closed after use.",
        Query("sum by (pool) (db_pool_overflow{@pool})", "{{pool}}"),
        unit="none",
        legend="names",
        links=(ONE_POOL,),
    ),
)

DASHBOARD = dashboard(
    "Database",
    "The application's pool and queries beside PostgreSQL's own view of connections, transactions, locks and cache. "
    "Rates and percentiles are averages of 5 minutes.",
    variables=VARIABLES,
    rows=(
        Row("", sixths(STRIP)),
        Row("Connections", halves(CONNECTIONS, 7)),
        Row("Queries", halves(QUERIES)),
        Row("Transactions", thirds(TRANSACTIONS, 7)),
        Row("PostgreSQL", quarters(SERVER_ROW, 7)),
        Row("Servers and settings", full(SERVERS, 4)),
        Row("Pool in detail", thirds(POOL_DETAIL, 7), collapsed=True),
        Row("Replication and write-ahead log", quarters(REPLICATION, 7), collapsed=True),
        Row("Storage", quarters(STORAGE, 7), collapsed=True),
        Row("Tables", full(TABLES, 9), collapsed=True),
        Row("Statements", full(STATEMENTS, 11), collapsed=True),
    ),
)
