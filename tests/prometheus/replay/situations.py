"""Fifty-odd faults and healthy situations, each a change of the healthy world.

A fault begins at minute START. `late` is the number of minutes after which its first alert no longer helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .world import STEP, World, healthy

START = 30.0
A, B = "a:8000", "b:8000"
USERS = r"/items|/reports|/chat"


@dataclass(frozen=True)
class Situation:
    name: str
    apply: Callable[[World, float, float], None]
    """(world, start, end of the fault)"""
    lasts: float = 20
    late: float = 15
    """Minutes until the first alert; 0 means healthy: none may come."""
    tail: float = 10
    """Minutes that are watched after the end."""
    start: float = START
    step: float = STEP
    """Seconds from scrape to scrape; rules are evaluated every 15, or as rarely as that where it takes minutes."""

    alerts: str = ".*"
    """Which alerts are played (a regular expression): of a week, some take minutes."""

    @property
    def interval(self) -> float:
        """Seconds from one evaluation of the rules to the next."""
        return self.step if self.step >= 60 else STEP

    @property
    def end(self) -> float:
        return self.start + self.lasts

    @property
    def minutes(self) -> float:
        return self.end + self.tail

    def world(self) -> World:
        world = healthy(self.minutes)
        world.step = self.step
        self.apply(world, self.start, self.end)
        return world


SITUATIONS: list[Situation] = []


def situation(name: str, **settings: Any) -> Callable[[Callable[[World, float, float], None]], None]:
    def register(apply: Callable[[World, float, float], None]) -> None:
        SITUATIONS.append(Situation(name, apply, **settings))

    return register


def harmless(name: str, **settings: Any) -> Callable[[Callable[[World, float, float], None]], None]:
    return situation(name, late=0, **settings)


def fail(world: World, start: float, end: float, share: float, **labels: str) -> None:
    """That share of requests becomes a 5xx (fast ones), with an exception each."""
    for series in list(world.find("http_requests_total", status_code="200", **{"endpoint": USERS, **labels})):
        rate = world.series[series][0][1] or 0
        bad = series.replace('status_code="200"', 'status_code="500"')
        world.series[series] = list(world._changed(world.series[series], start, end, lambda v: v * (1 - share)))
        world.series[bad] = list(world._changed(world.series[bad], start, end, lambda _, r=rate: r * share))  # type: ignore[misc]
        base = series.partition("{")[2].replace(', status_code="200"', "")
        for kind in ("request_duration", "response_start"):
            for le in ("0.1", "0.5", "1.0", "5.0", "30.0", "+Inf"):
                name = f'http_failed_{kind}_seconds_bucket{{{base.rstrip("}")}, le="{le}"}}'
                world.series[name] = [(start, None), (end, rate * share), (world.minutes, 0)]
            world.series[f"http_failed_{kind}_seconds_count{{{base}"] = [
                (start, None),
                (end, rate * share),
                (world.minutes, 0),
            ]
        if share >= 0.5:
            place = base.rstrip("}")
            world.series[f'http_exceptions_total{{{place}, exception="Broken"}}'] = [
                (start, None),
                (end, rate * share),
                (world.minutes, 0),
            ]


def slow(world: World, start: float, end: float, share: float, **labels: str) -> None:
    """That share of responses takes about three seconds."""
    for kind in ("request_duration", "response_start"):
        wanted = {"endpoint": "/items|/reports", **labels}
        world.scale(start, end, 1 - share, f"http_{kind}_seconds_bucket", le=r"0\.1|0\.5|1\.0", **wanted)


def traffic(world: World, start: float, end: float, factor: float, **labels: str) -> None:
    wanted = {"endpoint": USERS, **labels}
    world.scale(start, end, factor, "http_(requests|request_duration|response_start).*", **wanted)


def down(world: World, start: float, end: float, **labels: str) -> None:
    world.set(start, end, 0, "up", **labels)
    world.gone(start, end, **labels)


def flap(world: World, start: float, end: float, every: float, minutes: float, instance: str = A) -> None:
    """An instance is down for `minutes`, again and again: `every` so many minutes."""
    while start < end:
        down(world, start, start + minutes, job="app", instance=instance)
        start += every


def deploy(world: World, minute: float, number: int) -> None:
    """The `number`-th rolling deploy: one instance after the other restarts, and takes half a minute."""
    for offset, instance in ((0, A), (2, B)):
        begins = minute + offset
        down(world, begins, begins + 0.5, job="app", instance=instance)
        world.set(
            begins + 0.5, world.minutes, 5000 + number, "process_start_time_seconds", job="app", instance=instance
        )


def vanished(world: World, start: float, end: float, **labels: str) -> None:
    world.gone(start, end, **labels)
    world.set(start, end, None, "up", **labels)


def bucket_slow(world: World, start: float, end: float, histogram: str, beyond: str) -> None:
    """All observations lie beyond these bounds (a regular expression of `le`)."""
    world.scale(start, end, 0, f"{histogram}_bucket", le=beyond)


# Targets


@situation("service down", late=5, tail=45)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="app")


@situation("service vanishes from discovery", late=6)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="app")


@situation("one of two instances down", late=6)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="app", instance=B)


@situation("host exporter vanishes", late=10)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="node", instance="n2.*")


@situation("database exporter vanishes", late=10)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="postgres")


@situation("database exporter down", late=10)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, instance="pg.*")


@situation("flapping: 75 s up, 75 s down", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    flap(w, s, e, every=2.5, minutes=1.25)


@situation("crash loop, faster than scrapes", lasts=20, late=8)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e)):
        w.set(minute, w.minutes, 1000 + 60 * minute, "process_start_time_seconds", job="app", instance=A)


# HTTP


@situation("every request fails", late=4, tail=45)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("every request fails for three minutes", lasts=3, late=3)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("a fifth of the requests fails", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.2)


@situation("3 % of the requests fail", lasts=90, late=45)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.03)


@situation("one endpoint fails wholly", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, endpoint="/reports")


@situation("2 % of one endpoint for hours", lasts=120, late=60)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.02, endpoint="/items", method="GET")


@situation("one method of an endpoint fails", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, endpoint="/items", method="POST")


@situation("one instance fails", late=5)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, instance=B)


@situation("a canary with 1 % of the traffic fails wholly", late=8)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.02, instance=B)
    fail(w, s, e, 1, instance=B)


@situation("everything is slow", late=10, tail=45)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1)


@situation("a fifth of the responses is slow", lasts=90, late=60)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 0.2)


@situation("one endpoint with 5 % of the traffic is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, endpoint="/reports")


@situation("one method of an endpoint is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, endpoint="/items", method="POST")


@situation("one instance is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, instance=B)


@situation("requests pile up", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 40, "http_requests_in_progress", instance=A, endpoint="/items|/reports")


@situation("streams of the model start late", late=10)
def _(w: World, s: float, e: float) -> None:
    for histogram in ("http_response_start_seconds", "llm_time_to_first_token_seconds"):
        bucket_slow(w, s, e, histogram, r"0\.1|0\.5|1\.0|5\.0")


@situation("file descriptors run out", late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 950, "process_open_fds", instance=A)


@situation("scrapes get slow", late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 8, "scrape_duration_seconds", instance=A)


# Language models


@situation("the model's provider is down", late=6)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0, "llm_requests_total", outcome="success")
    w.set(s, e, 0.25, "llm_requests_total", outcome="error")
    fail(w, s, e, 1, endpoint="/chat")


@situation("the provider limits the rate", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.1, "llm_retries_total", reason="rate_limit")


@situation("model responses are slow", late=12)
def _(w: World, s: float, e: float) -> None:
    bucket_slow(w, s, e, "llm_request_duration_seconds", r"0\.1|0\.5|1\.0|5\.0|30\.0")


@situation("answers break off", late=10)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0.7, "llm_requests_total", outcome="success")
    w.set(s, e, 0.075, "llm_requests_total", outcome="incomplete")


@situation("calls of a model hang", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0, "llm_requests_total")
    w.set(s, e, 10, "llm_requests_in_progress")


@situation("a loop spends 60 dollars an hour, no history", lasts=40, late=15)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 60 / 3600 / 2, "llm_cost_usd_total")


@situation("usage is no longer returned", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.2, "llm_usage_missing_total", reason="not_returned")


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


# Healthy: nothing may be sent


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
