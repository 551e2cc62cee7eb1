"""Healthy situations: nothing may be sent."""

from __future__ import annotations

from .situations import A, B, down, fail, harmless, slow, traffic, vanished
from .world import World


@harmless("an ordinary hour", lasts=60)
def _(w: World, s: float, e: float) -> None:
    pass


@harmless("a quiet night: one of ten requests fails")
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.0005)  # and no exception of a new kind: with them it would be news
    fail(w, s, s + 0.25, 0.49)


@harmless("a blip: half of the requests fail for ten seconds", lasts=1)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, s + 0.25, 0.45)


@harmless("a restart of 40 seconds", lasts=1)
def _(w: World, s: float, e: float) -> None:
    down(w, s, s + 0.75, job="app")


@harmless("a deploy, one instance after the other", lasts=5)
def _(w: World, s: float, e: float) -> None:
    for offset, instance in ((0, A), (2, B)):
        down(w, s + offset, s + offset + 0.75, job="app", instance=instance)
        w.set(s + offset + 0.75, w.minutes, 5000, "process_start_time_seconds", job="app", instance=instance)


@harmless("two instances become one")
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, w.minutes, job="app", instance=B)
    traffic(w, s, w.minutes, 2, instance=A)


@harmless("ten times the traffic, as in a load test", lasts=10)
def _(w: World, s: float, e: float) -> None:
    traffic(w, s, e, 10)
    w.scale(s, e, 10, "llm_(requests|tokens)_total")
    w.scale(s, e, 10, "db_.*_(total|bucket|count|sum)")


@harmless("traffic ends", lasts=60)
def _(w: World, s: float, e: float) -> None:
    traffic(w, s, w.minutes, 0)
    w.scale(s, w.minutes, 0, "(llm|db)_.*_(total|bucket|count|sum)")
    w.set(s, w.minutes, 0, "llm_requests_in_progress")


@harmless("a scanner: half of the requests are 404")
def _(w: World, s: float, e: float) -> None:
    w.add(
        "http_requests_total",
        0,
        job="app",
        service="sightline",
        instance=A,
        method="GET",
        endpoint="unmatched",
        status_code="404",
    )
    w.set(s, e, 10, "http_requests_total", endpoint="unmatched")


@harmless("a report that always takes three seconds")
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.05, endpoint="/reports")
    slow(w, 0, w.minutes, 1, endpoint="/reports")


@harmless("a backup at night: pg_dump for 20 minutes, a busy disk")
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 1200, "pg_stat_activity_max_tx_duration", application_name="pg_dump", state="active")
    w.set(s, e, 0.9, "node_disk_io_time_seconds_total")
    w.set(s, e, 4, "node_disk_io_time_weighted_seconds_total")
    w.set(s, e, 200, "node_disk_writes_completed_total")
    w.set(s, e, 3, "node_disk_write_time_seconds_total")


@harmless("a backup writes a tenth of the disk and deletes it")
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 10, 60e9, 50e9, "node_filesystem_avail_bytes", mountpoint="/data")
    w.set(s + 10, e, 50e9, "node_filesystem_avail_bytes", mountpoint="/data")


@harmless("a build keeps the processors busy for five minutes", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.02, "node_cpu_seconds_total", mode="idle")
    w.set(s, e, 3, "node_load[15]")


@harmless("ZFS uses the memory as its cache", lasts=60)
def _(w: World, s: float, e: float) -> None:
    w.set(0, w.minutes, 4e8, "node_memory_MemAvailable_bytes")
    for instance in ("n1:9100", "n2:9100"):
        w.add("node_zfs_arc_size", 4e9, job="node", instance=instance)
        w.add("node_zfs_arc_c_min", 2.5e8, job="node", instance=instance)


@harmless("a read-only file system from the start", lasts=30)
def _(w: World, s: float, e: float) -> None:
    w.set(0, w.minutes, 1, "node_filesystem_readonly", mountpoint="/data")
    w.set(0, w.minutes, 0, "node_filesystem_avail_bytes", mountpoint="/data")


@harmless("no Alertmanager at all", lasts=60)
def _(w: World, s: float, e: float) -> None:
    for series in list(w.find(".*", job="alertmanager")):
        del w.series[series]
    w.set(0, w.minutes, 0, "prometheus_notifications_alertmanagers_discovered")
    w.set(0, w.minutes, 0.1, "prometheus_notifications_dropped_total")


@harmless("nightly batch: long transactions of an hour are no client's", lasts=30)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "postgres", "service": "sightline", "instance": "pg:9187", "datname": "sightline"}
    labels = {"state": "active", "usename": "", "application_name": "", "backend_type": "autovacuum worker"}
    w.add("pg_stat_activity_max_tx_duration", 3600, **own, **labels)


@harmless("constraint violations: names that are taken")
def _(w: World, s: float, e: float) -> None:
    w.add(
        "db_query_errors_total",
        0,
        job="app",
        service="sightline",
        instance=A,
        pool="main",
        operation="INSERT",
        sqlstate_class="23",
    )
    w.set(s, e, 2, "db_query_errors_total", sqlstate_class="23")


@harmless("clients cancel their streams")
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.2, "llm_requests_total", outcome="cancelled")


@harmless("one deadlock", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 0.25, 1 / 15, "pg_stat_database_deadlocks")


@harmless("0.05 % of the requests fail, as the objective allows", lasts=120)
def _(w: World, s: float, e: float) -> None:
    fail(w, 0, w.minutes, 0.0005)


@harmless("Prometheus restarts", lasts=2)
def _(w: World, s: float, e: float) -> None:
    down(w, s, s + 0.5, job="prometheus")
    w.set(s + 0.5, w.minutes, 7000, "process_start_time_seconds", job="prometheus")


@harmless("a peak: pool at 80 % for ten minutes", lasts=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 16, "db_pool_connections", state="used")


@harmless("some packets are damaged")
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.05, "node_network_receive_errs_total")


@harmless("a model's answer takes six minutes, alone", lasts=30)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0, "llm_requests_total")
    w.set(s, s + 6, 1, "llm_requests_in_progress")
    w.set(s + 6, s + 6.25, 1 / 15, "llm_requests_total", outcome="success")
    w.set(s + 6, e, 0, "llm_requests_in_progress")
