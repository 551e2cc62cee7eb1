"""Database, PostgreSQL's own view: sessions, locks, cache, replication, storage, tables, statements."""

from __future__ import annotations

from prometheus.src.recorded import exported

from . import slo
from .common import DATNAME, INSTANCE, JOB, POOL, SERVER, only
from .common_panels import up_of
from .looks import PER_MINUTE, UP_OR_DOWN, coloured, values
from .model import Link, Panel, Query
from .panels import timeseries
from .promql import POSTGRESQL, occurring, or_named
from .tables import Column, table

NO_ANSWER = "no answer"  # of the exporter, or of PostgreSQL to it
NO_TABLES = "No tables, or PostgreSQL does not answer"
VARIABLES = (JOB, INSTANCE, POOL, SERVER, DATNAME)
ONE_DATABASE = only("Only ${__field.labels.datname}", "Database", VARIABLES, DATNAME, "__field.labels.datname")
UP = "on (instance) pg_up{@db} == 1"


def server_rate(counter: str, matchers: str = "@data") -> str:
    """Events per second of a counter of the server, while PostgreSQL responds: its rate would continue."""
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


def postgresql_up(matchers: str, *links: Link) -> Panel:
    last = f"last_over_time(pg_up{{{matchers}}}[30d])"
    exporter_down = f"up == 0 and on (job, instance) {last}"
    return up_of(
        "Postgres",
        "Servers that respond to their exporter, of those that did within the last 30 days. While the exporter of "
        "one that was up does not respond, its state is unknown; SQL errors and Query p95 come from the "
        "application.",
        f"(max by (instance) (pg_up{{{matchers}}}) or max by (instance) ({exporter_down}))",
        "none known",
        *links,
        unseen=f"{exporter_down} == 1 unless on () pg_up{{{matchers}}} == 0",
    )


LOCKS = "sum by (mode) (pg_locks_count{@data})"
HELD = "max by (mode) (max_over_time(pg_locks_count{@data}[$__range] @ end())) > 0"
WAITING = 'pg_stat_activity_count{@data, state="active", wait_event_type!~"|Client|Activity"}'
WAITED = f"last_over_time({WAITING}[$__range] @ end())"
SERVER_ROW = (
    timeseries(
        "Tuples",
        "Tuples (rows) per second by operation. Far more returned than fetched means that whole tables are scanned.",
        tuple(
            Query(f"sum({server_rate(f'pg_stat_database_tup_{kind}')})", kind)
            for kind in ("returned", "fetched", "inserted", "updated", "deleted")
        ),
        unit="count:tuples/s",
    ),
    timeseries(
        "Buffer cache hit ratio",
        "Reads that found their block in PostgreSQL's memory; the rest came from the system's cache or a disk.",
        Query(hit_ratio("datname"), "{{datname}}"),
        unit="percentunit",
        lowest=None,
        highest=1,
        soft_lowest=0.9,
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Locks",
        "Locks held, by mode; only modes that occurred in the time range. Exclusive ones block others.",
        Query(occurring(LOCKS, HELD, "mode", source=POSTGRESQL), "{{mode}}"),
        unit="none",
        stacked=True,
    ),
    timeseries(
        "Deadlocks, conflicts",
        "Deadlocks, and queries cancelled because of recovery on a replica, per minute.",
        (
            Query(f"60 * sum({server_rate('pg_stat_database_deadlocks')})", "deadlocks"),
            Query(f"60 * sum({server_rate('pg_stat_database_conflicts')})", "conflicts"),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"deadlocks": "red", "conflicts": "orange"}),
    ),
    timeseries(
        "Temporary files",
        "Bytes per second written to disk because sorting or hashing did not fit into work_mem.",
        Query(f"sum by (datname) ({server_rate('pg_stat_database_temp_bytes')})", "{{datname}}"),
        unit="Bps",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Checkpoints, 1 hour",
        "Checkpoints in the last hour. Many requested ones mean that max_wal_size is too small for the write load.",
        (Query(f"sum({TIMED})", "timed"), Query(f"sum({REQUESTED})", "requested")),
        unit="none",
        overrides=coloured({"timed": "green", "requested": "orange"}),
    ),
    timeseries(
        "Longest transaction",
        "Age of the longest open transaction, by its current state; 0 if none is open.",
        Query(
            'max by (state) (pg_stat_activity_max_tx_duration{@data, state=~"active|idle in transaction.*"})',
            "{{state}}",
        ),
        unit="s",
    ),
    timeseries(
        "Queries that wait",
        "Sessions whose running query waits, by cause: Lock is another transaction, IO a disk, LWLock shared "
        "memory. Client is not a wait of the server and is left out.",
        Query(
            or_named(f"sum by (wait_event_type) ({WAITING})", "wait_event_type", WAITED, source=POSTGRESQL),
            "{{wait_event_type}}",
        ),
        unit="none",
        stacked=True,
        overrides=coloured({"Lock": "red", "IO": "orange", "LWLock": "yellow"}),
    ),
)

LAG_STEPS = slo.red_at("replication_lag_seconds", 0.3)
ROLE = values({"0": ("primary", "green"), "1": ("replica", "blue")})
WRAPAROUND = 2_000_000_000  # transactions; PostgreSQL refuses writes 3 million before 2^31
# 180006 is 18.6, and 160011 is 16.11. Unknown for a server that does not respond.
VERSION = (
    'label_replace(count_values by (instance) ("number", pg_settings_server_version_num{@db}), '
    '"version", "$1.$2", "number", "(..)0{0,3}(.+)") or on (instance) label_replace(pg_up{@db}, "version", "-", "", "")'
)
SERVERS = (
    table(
        "Servers",
        "Every PostgreSQL server at the end of the time range: whether it responds to its exporter, its uptime, role "
        "and most important settings. Each sort or hash may use as much memory as work_mem.",
        tuple(
            f"max by (instance, version) ({expr})"
            for expr in (
                "pg_up{@db}",
                "time() - pg_postmaster_start_time_seconds{@db}",
                "pg_replication_is_replica{@db}",
                "pg_replication_lag_seconds{@db}",
                VERSION,
                "pg_settings_max_connections{@db}",
                "pg_settings_shared_buffers_bytes{@db}",
                "pg_settings_work_mem_bytes{@db}",
                "pg_settings_max_wal_size_bytes{@db}",
            )
        ),
        unit="short",
        columns=(
            Column("instance", "Exporter"),
            Column("Value #A", "State", width=56, mappings=(UP_OR_DOWN,)),
            Column("Value #B", "Uptime", unit="s", width=80),
            Column("Value #C", "Role", width=66, mappings=(ROLE,)),
            Column("Value #D", "Lag", unit="s", width=55, steps=LAG_STEPS),
            Column("version", "Version", width=68),
            Column("Value #F", "max_connections", unit="none", width=138),
            Column("Value #G", "shared_buffers", unit="bytes", width=120),
            Column("Value #H", "work_mem", unit="bytes", width=90),
            Column("Value #I", "max_wal_size", unit="bytes", width=110),
        ),
        no_value="No exporter of PostgreSQL answers",
    ),
)

REPLICATION = (
    timeseries(
        "Replication lag",
        "How far a replica is behind its primary. Above the line an alert fires.",
        Query("max by (instance) (pg_replication_lag_seconds{@db})", "{{instance}}"),
        unit="s",
        limit=slo.threshold("replication_lag_seconds"),
        no_value="PostgreSQL does not answer",
    ),
    timeseries(
        "Replication slots",
        "Bytes of WAL retained by each replication slot. A slot without a consumer fills the disk.",
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
    ),
    timeseries(
        "WAL archiving",
        "Segments of the write-ahead log archived and failed per minute. None if archive_mode is off.",
        (
            Query(f"60 * sum({server_rate('pg_stat_archiver_archived_count', '@db')})", "archived"),
            Query(f"60 * sum({server_rate('pg_stat_archiver_failed_count', '@db')})", "failed"),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"archived": "green", "failed": "red"}),
    ),
    timeseries(
        "WAL size",
        "Size of the retained write-ahead log. It grows when a replica or an archive lags.",
        Query("sum by (instance) (pg_wal_size_bytes{@db})", "{{instance}}"),
        unit="bytes",
    ),
)

STORAGE = (
    timeseries(
        "Database size",
        "Size of each database on disk.",
        Query("sum by (datname) (pg_database_size_bytes{@data})", "{{datname}}"),
        unit="bytes",
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "ID wraparound",
        "Share of the transaction IDs used since the oldest frozen one. Autovacuum freezes from about 10 % on; "
        "near 100 % PostgreSQL refuses writes.",
        Query(
            f"max by (datname) (pg_database_wraparound_age_datfrozenxid_seconds{{@data}}) / {WRAPAROUND}",
            "{{datname}}",
        ),
        unit="percentunit",
        soft_highest=0.15,
        links=(ONE_DATABASE,),
    ),
    timeseries(
        "Dead tuples",
        "Deleted or replaced tuples that have not been vacuumed yet, for the ten worst tables.",
        Query("topk(10, sum by (relname) (pg_stat_user_tables_n_dead_tup{@data}))", "{{relname}}"),
        unit="short",
        no_value=NO_TABLES,
    ),
    timeseries(
        "Sequential scans",
        "Tuples per second read without an index, for the ten worst tables. Acceptable for small tables only.",
        Query(
            f"topk(10, sum by (relname) ({server_rate('pg_stat_user_tables_seq_tup_read')}))",
            "{{relname}}",
        ),
        unit="count:tuples/s",
        no_value=NO_TABLES,
    ),
)


def _since(*times: str) -> str:
    """Seconds since the latest of several times; no value for a table where it never happened (0)."""
    latest = " or ".join(f"pg_stat_user_tables_last_{time}{{@data}}" for time in times)
    return f"time() - (max by (datname, relname) ({latest}) > 0)"


TABLES = (
    table(
        "Tables",
        "Every table at the end of the time range: dead tuples, time since it was vacuumed and analyzed (manually "
        "or by autovacuum; `-` is never), and how it is read.",
        (
            # Up to postgres_exporter 0.18 one series has both parts.
            "sum by (datname, relname) (pg_stat_user_tables_size_bytes{@data}"
            " or pg_stat_user_tables_table_size_bytes{@data} + pg_stat_user_tables_index_size_bytes{@data})",
            "sum by (datname, relname) (pg_stat_user_tables_n_live_tup{@data})",
            "sum by (datname, relname) (pg_stat_user_tables_n_dead_tup{@data})",
            _since("vacuum", "autovacuum"),
            _since("analyze", "autoanalyze"),
            "sum by (datname, relname) (pg_stat_user_tables_seq_scan{@data})",
            "sum by (datname, relname) (pg_stat_user_tables_idx_scan{@data})",
        ),
        unit="short",
        columns=(
            Column("datname", "Database", width=95),
            Column("relname", "Table"),
            Column("Value #A", "Size", unit="bytes", width=110, bar=True),
            Column("Value #B", "Live tuples", unit="short", width=95),
            Column("Value #C", "Dead tuples", unit="short", width=105),
            Column("Value #D", "Vacuum age", unit="s", width=105),
            Column("Value #E", "Analyze age", unit="s", width=105),
            Column("Value #F", "Seq. scans", unit="short", width=95),
            Column("Value #G", "Index scans", unit="short", width=100),
        ),
        sort_by=(("Size", True),),
        no_value=NO_TABLES,
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
        "The ten statements that took the most server time in the time range. Those that end with an error, such as a "
        "timeout, are missing: pg_stat_statements does not count them. The text is shown where postgres_exporter 0.18 "
        "or newer exports it (--collector.stat_statements.include_query); else: SELECT query FROM pg_stat_statements "
        "WHERE queryid = …",
        (
            f"topk(10, {SECONDS}) * on (queryid) group_left (query) {TEXT}"
            f" or (topk(10, {SECONDS}) unless on (queryid) {TEXT})",
            f"{NUMBER} and topk(10, {SECONDS})",
            f"{SECONDS} / ({NUMBER} > 0) and topk(10, {SECONDS})",
            f"{TUPLES} and topk(10, {SECONDS})",
        ),
        unit="short",
        columns=(
            Column("queryid", "Query id", width=180),
            Column("query", "Statement"),
            Column("datname", "Database", width=95),
            Column("user", "Role", width=140),
            Column("Value #A", "Total time", unit="s", width=140, bar=True),
            Column("Value #B", "Calls", unit="short", width=75, decimals=0),
            Column("Value #C", "Time per call", unit="s", width=115, steps=slo.red_at("query_seconds", 0.2)),
            Column("Value #D", "Rows", unit="short", width=75, decimals=0),
        ),
        sort_by=(("Total time", True),),
        no_value="No statements in this range",
    ),
)
