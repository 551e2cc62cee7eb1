"""Ordinary operations, which must send no alert: deploys, scaling, load tests, backups, copies, rotations."""

from __future__ import annotations

from .more import maintenance
from .situations import A, B, down, fail, harmless, slow, traffic, vanished
from .sizes import busy, tenants
from .variants import second_service
from .world import World

DISK = "node_filesystem_avail_bytes"


@harmless("a rolling deploy of six instances, 20 seconds each", lasts=10)
def _(w: World, s: float, e: float) -> None:
    w.restarts = True
    second_service(w, instances=6, rate=50)
    for number in range(6):
        at = s + number
        down(w, at, at + 0.5, job="shop", instance=f"s{number}:8000")
        w.set(at + 0.5, w.minutes, 5000, "process_start_time_seconds", job="shop", instance=f"s{number}:8000")


@harmless("scrapes every 30 seconds: a deploy of two instances", lasts=5, step=30)
def _(w: World, s: float, e: float) -> None:
    w.restarts = True
    for offset, instance in ((0, A), (2, B)):
        down(w, s + offset, s + offset + 0.5, job="app", instance=instance)
        w.set(s + offset + 0.5, w.minutes, 5000, "process_start_time_seconds", job="app", instance=instance)


@harmless("blue and green: all instances are replaced at once", lasts=20)
def _(w: World, s: float, e: float) -> None:
    for old, new in ((A, "c:8000"), (B, "d:8000")):
        for series in list(w.find(".*", job="app", instance=old)):
            value = w.series[series][0][1]
            w.series[series] = [(s + 1, value), (w.minutes, None)]
            w.series[series.replace(f'"{old}"', f'"{new}"')] = [(s, None), (w.minutes, value)]


@harmless("two instances become ten and two again within half an hour", lasts=30)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=10, rate=5)
    for number in range(2, 10):
        for series in list(w.find(".*", job="shop", instance=f"s{number}:8000")):
            value = w.series[series][0][1]
            w.series[series] = [(s + number, None), (e - number, value), (w.minutes, None)]


@harmless("a load test of 25 minutes with 500 requests a second, where one is usual", lasts=25)
def _(w: World, s: float, e: float) -> None:
    busy(w, 0.1)
    traffic(w, s, e, 500)
    w.scale(s, e, 500, "(db|llm)_(?!cost).*_(total|bucket|count|sum)", job="app")
    w.set(s, e, 18, "http_requests_in_progress", endpoint="/items|/reports")
    w.set(s, e, 15, "db_pool_connections", state="used")
    w.set(s, e, 0.25, "node_cpu_seconds_total", mode="idle")


@harmless("500 requests a second, all the time", lasts=30)
def _(w: World, s: float, e: float) -> None:
    busy(w, 50)
    w.set(0, w.minutes, 35, "http_requests_in_progress", endpoint="/items", method="GET")
    w.set(0, w.minutes, 20, "http_requests_in_progress", endpoint="/reports")
    fail(w, 0, w.minutes, 0.0004, endpoint="/items")


@harmless("500 requests a second: some transactions conflict and are tried again", lasts=30)
def _(w: World, s: float, e: float) -> None:
    busy(w, 50)
    w.set(s, e, 0.06, "db_query_errors_total")
    w.set(s, e, 0.02, "db_transactions_total", outcome="commit_failed")


@harmless("a peak of twenty times the traffic for a minute, 0.4 % of it fails", lasts=5)
def _(w: World, s: float, e: float) -> None:
    traffic(w, s, s + 1, 20)
    fail(w, s, s + 1, 0.004)


@harmless("Prometheus is two minutes old, and first responses are slow", lasts=20, start=2)
def _(w: World, s: float, e: float) -> None:
    busy(w, 0.1)
    slow(w, 0, s + 1, 0.3)


@harmless("a Sunday with scrapes every 30 seconds: a request a minute, two of them fail", lasts=60, step=30)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.002)
    for at in (s + 5, s + 40):
        fail(w, at, at + 0.5, 0.49)


@harmless("a tenant leaves, another has no traffic", lasts=20)
def _(w: World, s: float, e: float) -> None:
    tenants(w, "acme", "blue", "core")
    w.scale(0, w.minutes, 0, "http_.*", tenant="core")
    vanished(w, s, w.minutes, job="shop", tenant="blue")


@harmless("PostgreSQL restarts within 20 seconds, some requests fail", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 0.25, 0, "pg_up", instance="pg.*")
    w.set(s, s + 0.25, 0.2, "db_query_errors_total")
    fail(w, s, s + 0.25, 0.1)


@harmless("pg_dump reads all of the database for 40 minutes", lasts=40)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 2400, "pg_stat_activity_max_tx_duration", application_name="pg_dump", state="active")
    w.set(s, e, 9000, "pg_stat_database_blks_read")
    w.set(s, e, 0.95, "node_disk_io_time_seconds_total")
    w.set(s, e, 5, "node_disk_io_time_weighted_seconds_total")
    w.set(s, e, 400, "node_disk_reads_completed_total")
    w.set(s, e, 3, "node_disk_read_time_seconds_total")


@harmless("a report scans a table for four minutes", lasts=4)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 240, "pg_stat_activity_max_tx_duration", application_name="", state="active")
    w.set(s, e, 8000, "pg_stat_database_blks_read")


@harmless("a physical backup with 32 reads at once from an NVMe", lasts=25)
def _(w: World, s: float, e: float) -> None:
    maintenance(w, s, e, "barman_streaming_backup")
    w.set(s, e, 30, "node_disk_io_time_weighted_seconds_total", instance="n1.*")
    w.set(s, e, 1, "node_disk_io_time_seconds_total", instance="n1.*")
    w.set(s, e, 40_000, "node_disk_reads_completed_total", instance="n1.*")
    w.set(s, e, 28, "node_disk_read_time_seconds_total", instance="n1.*")


@harmless("a migration of 40 minutes through psql copies a table", lasts=40)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 52e9, DISK, mountpoint="/data")
    w.set(s, e, 500, "node_disk_writes_completed_total")
    w.set(s, e, 7, "node_disk_write_time_seconds_total")
    w.set(s, e, 7, "node_disk_io_time_weighted_seconds_total")


@harmless("logs rotate every hour: a tenth of the disk and of the inodes", lasts=180)
def _(w: World, s: float, e: float) -> None:
    for hour in range(int(w.minutes // 60) + 1):
        at = 60 * hour
        w.ramp(at, min(at + 60, w.minutes), 48e9, 38e9, DISK, mountpoint="/")
        w.ramp(at, min(at + 60, w.minutes), 6e5, 5e5, "node_filesystem_files_free", mountpoint="/")


@harmless("a file of a quarter of the disk is copied, and deleted after half an hour", lasts=45)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 12, 60e9, 36e9, DISK, mountpoint="/data", instance="n1.*")
    w.set(s + 12, e, 36e9, DISK, mountpoint="/data", instance="n1.*")


@harmless("a fast copy of a third of the disk within five minutes, deleted after ten", lasts=15)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 5, 60e9, 30e9, DISK, mountpoint="/data", instance="n1.*")
    w.set(s + 5, e, 30e9, DISK, mountpoint="/data", instance="n1.*")


@harmless("a data set of a third of the disk arrives within five minutes and stays", lasts=180)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 5, 60e9, 30e9, DISK, mountpoint="/data", instance="n1.*")
    w.set(s + 5, w.minutes, 30e9, DISK, mountpoint="/data", instance="n1.*")


@harmless("cron: every five minutes the processors are busy for two", lasts=60)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e), 5):
        w.set(minute, minute + 2, 0.01, "node_cpu_seconds_total", mode="idle")
        w.set(minute, minute + 2, 4, "node_load1")
        w.set(minute, minute + 2, 1.8, "node_load5")


@harmless("a batch of calls to the model, ten times as many for a quarter of an hour", lasts=15)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 10, "llm_(requests|tokens|cost_usd)_total")
    w.scale(s, e, 10, "llm_request_duration_seconds_(bucket|count|sum)")
    w.set(s, e, 12, "llm_requests_in_progress")


@harmless("caches take the memory: 12 % are available", lasts=30)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 9.6e8, "node_memory_MemAvailable_bytes")
    w.set(s, e, 300, "node_vmstat_pgmajfault")


@harmless("Alertmanager restarts within half a minute: a notification is dropped", lasts=5)
def _(w: World, s: float, e: float) -> None:
    down(w, s, s + 0.5, job="alertmanager")
    w.set(s, s + 0.25, 1 / 15, "prometheus_notifications_(dropped|errors)_total")
    w.set(s + 0.5, w.minutes, 7000, "process_start_time_seconds", job="alertmanager")


@harmless("a configuration is written in two steps: rejected once", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 0.25, 0, "prometheus_config_last_reload_successful")


@harmless("a connection pool at 85 % and 75 of 100 connections for half an hour", lasts=30)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 17, "db_pool_connections", state="used")
    w.set(s, e, 72, "pg_stat_activity_count", state="idle")
