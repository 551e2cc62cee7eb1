"""Faults of servers: PostgreSQL, hosts and the monitoring itself."""

from __future__ import annotations

from .situations import A, bucket_slow, down, fail, situation
from .world import World

# PostgreSQL


@situation("PostgreSQL is down", late=4, tail=45)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "pg_up", instance="pg.*")
    for series in list(w.find("pg_(stat|settings).*", instance="pg.*")):
        w.series[series] = list(w._changed(w.series[series], s, e, lambda _: None))
    w.set(s, e, 2, "db_query_errors_total")
    w.scale(s, e, 0, "db_transactions_total")
    fail(w, s, e, 1, endpoint="/items|/reports")


@situation("connections of PostgreSQL are exhausted", late=6, tail=45)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 77, "pg_stat_activity_count", state="idle")
    w.set(s, e, 20, "pg_stat_activity_count", state="active")
    w.set(s, e, 1, "db_query_errors_total")
    w.set(s, e, 20, "db_pool_connections", state="used")
    w.set(s, e, 0.3, "db_pool_checkout_timeouts_total")
    fail(w, s, e, 0.4, endpoint="/items|/reports")


@situation("connections at 88 %", late=12)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 85, "pg_stat_activity_count", state="idle")


@situation("the pool runs dry", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 20, "db_pool_connections", state="used", instance=A)
    w.set(s, e, 0.2, "db_pool_checkout_timeouts_total", instance=A)
    bucket_slow(w, s, e, "db_pool_checkout_wait_seconds", r"0\.1|0\.5|1\.0")
    fail(w, s, e, 0.3, instance=A)


@situation("a query gets slow", late=10)
def _(w: World, s: float, e: float) -> None:
    bucket_slow(w, s, e, "db_query_duration_seconds", r"0\.1|0\.5|1\.0")


@situation("queries fail", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.2, "db_query_errors_total")


@situation("commits fail", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.05, "db_transactions_total", outcome="commit_failed")


@situation("a transaction stays open", lasts=30, late=12)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 1800, "pg_stat_activity_max_tx_duration", application_name="", state="active")


@situation("transactions deadlock", late=12)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.02, "pg_stat_database_deadlocks")


@situation("a replica lags behind", late=8)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 1200, "pg_replication_lag_seconds")


@situation("the cache no longer holds the data", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 8000, "pg_stat_database_blks_read")


# Hosts


@situation("a disk fills up within 40 minutes", lasts=40, late=38)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 0, "node_filesystem_avail_bytes", instance="n1.*", mountpoint="/data")


@situation("a disk is full", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 1e9, "node_filesystem_avail_bytes", instance="n1.*", mountpoint="/data")


@situation("inodes run out within an hour", lasts=60, late=55)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 9e5, 0, "node_filesystem_files_free", instance="n1.*", mountpoint="/data")


@situation("a file system turns read-only", late=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 1, "node_filesystem_readonly", instance="n1.*", mountpoint="/data")


@situation("memory runs out", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 3e8, "node_memory_MemAvailable_bytes", instance="n1.*")
    w.set(s, e, 0.4, "node_pressure_memory_stalled_seconds_total", instance="n1.*")


@situation("the kernel kills a process", late=3)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 0.25, 0.1, "node_vmstat_oom_kill", instance="n1.*")


@situation("processors at 97 %", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.03, "node_cpu_seconds_total", instance="n1.*", mode="idle")
    w.set(s, e, 0.92, "node_cpu_seconds_total", instance="n1.*", mode="user")
    w.set(s, e, 6, "node_load[15]", instance="n1.*")


@situation("a disk dies", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 5, "node_disk_(reads|writes)_completed_total", instance="n1.*")
    w.set(s, e, 4, "node_disk_(read|write)_time_seconds_total", instance="n1.*")
    w.set(s, e, 1, "node_disk_io_time_seconds_total", instance="n1.*")
    w.set(s, e, 8, "node_disk_io_time_weighted_seconds_total", instance="n1.*")


@situation("a network card damages packets", lasts=30, late=12)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 50, "node_network_receive_errs_total", instance="n1.*")


@situation("a clock is off by seconds", lasts=30, late=12)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 2, "node_timex_offset_seconds", instance="n1.*")


# Monitoring


@situation("Alertmanager is down", late=10)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="alertmanager")
    w.set(s, e, 0.1, "prometheus_notifications_(dropped|errors)_total")


@situation("notifications are not delivered", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.02, "alertmanager_notifications_failed_total")


@situation("a configuration is rejected", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "prometheus_config_last_reload_successful")


@situation("rules fail", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.07, "prometheus_rule_evaluation_failures_total")


@situation("Prometheus cannot write its data", late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.01, "prometheus_tsdb_wal_writes_failed_total")


@situation("a collector of the exporter loses its right", late=15)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "pg_scrape_collector_success", collector="stat_database")
