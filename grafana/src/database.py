"""Database: the application's view (pool, queries, transactions) beside PostgreSQL's own."""

from __future__ import annotations

from prometheus.src import recorded
from prometheus.src.recorded import exported

from . import bounds, slo
from .common import dashboard
from .common_panels import service_stat
from .database_application import (
    CONNECTIONS,
    PER_CHECKOUT,
    POOL_DETAIL,
    QUERIES,
    TRANSACTIONS,
    checkouts,
    pool_in_use,
    query_errors,
    query_p95,
)
from .database_postgresql import (
    COMMITS,
    NO_ANSWER,
    REPLICATION,
    ROLLBACKS,
    SERVER_ROW,
    SERVERS,
    STATEMENTS,
    STORAGE,
    TABLES,
    VARIABLES,
    hit_ratio,
    postgresql_up,
)
from .layout import full, halves, quarters, sixths, thirds
from .looks import Steps
from .model import Row
from .panels import stat
from .promql import POSTGRESQL, or_zero, percentile, speed

STRIP = (
    postgresql_up("@db"),
    query_errors("@pool"),
    query_p95("@pool"),
    pool_in_use("@pool"),
    service_stat(
        "Wait p95",
        "95 of 100 checkouts get a connection from the pool within this time, average of 5 minutes.",
        speed(percentile(0.95, recorded.CHECKOUT_WAIT, matchers="@pool"), checkouts("@pool")),
        unit="s",
        steps=slo.red_at("pool_wait_seconds", 0.2),
        no_value="idle",
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
        "Connections in use as a share of max_connections, for the fullest server.",
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
        "Time since the most recent start of a PostgreSQL server.",
        "time() - max(pg_postmaster_start_time_seconds{@db} and on (instance) pg_up{@db} == 1)",
        unit="s",
        no_value=NO_ANSWER,
        decimals=1,
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
        Row("Queries", halves(QUERIES, 9)),  # room for ten names
        Row("Transactions", thirds(TRANSACTIONS, 7)),
        Row("PostgreSQL", quarters(SERVER_ROW, 8)),
        Row("Servers and settings", full(SERVERS, 4)),
        Row("Pool in detail", thirds(POOL_DETAIL, 7), collapsed=True),
        Row("Replication and write-ahead log", quarters(REPLICATION, 7), collapsed=True),
        Row("Storage", quarters(STORAGE, 7), collapsed=True),
        Row("Tables", full(TABLES, 9), collapsed=True),
        Row("Statements", full(STATEMENTS, 11), collapsed=True),
    ),
)
