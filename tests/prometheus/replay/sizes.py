"""Faults at other sizes: a request in ten seconds or 500 a second, other scrape intervals, tenants, minutes of past."""

from __future__ import annotations

from .situations import A, B, down, fail, situation, slow, traffic
from .variants import second_service
from .world import World


def busy(world: World, factor: float) -> None:
    """So many times the ordinary traffic, queries and calls, all the time, of a cheaper model."""
    traffic(world, 0, world.minutes, factor)
    world.scale(0, world.minutes, factor, "(db|llm)_(?!cost).*_(total|bucket|count|sum)", job="app")
    world.scale(0, world.minutes, factor, "pg_stat_database_.*")


def tenants(world: World, *names: str) -> None:
    """The second service, an instance for each tenant: a label of the targets, with the environment and the region."""
    second_service(world, instances=len(names))
    for number, name in enumerate(names):
        for series in list(world.find(".*", job="shop", instance=f"s{number}:8000")):
            labels = f'job="shop", tenant="{name}", environment="production", region="eu"'
            world.series[series.replace('job="shop"', labels)] = world.series.pop(series)


# HTTP


@situation("a request in ten seconds, and each fails", late=8)
def _(w: World, s: float, e: float) -> None:
    second_service(w, rate=0.1)
    fail(w, s, e, 1, job="shop")


@situation("500 requests a second, and 7 % fail", lasts=40, late=20)
def _(w: World, s: float, e: float) -> None:
    busy(w, 50)
    fail(w, s, e, 0.07)


@situation("500 requests a second, and a tenth of an endpoint with 5 % of them fails", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    busy(w, 50)
    fail(w, s, e, 0.1, endpoint="/reports")


@situation("500 requests a second pile up", late=6)
def _(w: World, s: float, e: float) -> None:
    busy(w, 50)
    w.set(0, w.minutes, 30, "http_requests_in_progress", instance="[ab].*", endpoint="/items")
    w.set(s, e, 600, "http_requests_in_progress", instance=A, endpoint="/items")


@situation("scrapes every 30 seconds: every request fails", late=4, step=30)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("scrapes every 30 seconds: one of four instances is down", late=6, step=30)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=4)
    down(w, s, e, job="shop", instance="s2.*")


@situation("scrapes every 30 seconds: an instance is up and down by turns of two minutes", lasts=30, late=15, step=30)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e), 4):
        down(w, minute, minute + 2, job="app", instance=B)


@situation("scrapes every 10 seconds: an endpoint becomes slow", late=10, step=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, endpoint="/reports")


@situation("scrapes every 10 seconds: PostgreSQL fails over within two minutes", lasts=2, late=2, step=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "pg_up", instance="pg.*")
    w.set(s, e, 2, "db_query_errors_total")
    fail(w, s, e, 1, endpoint="/items|/reports")


@situation("one of five tenants gets errors only", late=6)
def _(w: World, s: float, e: float) -> None:
    tenants(w, "acme", "blue", "core", "dune", "echo")
    fail(w, s, e, 1, job="shop", tenant="dune")


@situation("the only instance of a tenant is down", late=6)
def _(w: World, s: float, e: float) -> None:
    tenants(w, "acme", "blue", "core")
    down(w, s, e, job="shop", tenant="blue")


@situation("Prometheus is three minutes old, and the service goes down", late=5, start=3)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="app")


@situation("Prometheus is six minutes old, and connections run out", late=5, start=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 75, "pg_stat_activity_count", state="idle")
    w.set(s, e, 22, "pg_stat_activity_count", state="active")
    w.set(s, e, 1, "db_query_errors_total")
    fail(w, s, e, 0.5, endpoint="/items|/reports")


@situation("a rolling deploy of six: each fails a third of its requests once it is new", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    w.restarts = True
    second_service(w, instances=6)
    for number in range(6):
        at = s + 1.5 * number
        instance = f"s{number}:8000"
        down(w, at, at + 0.5, job="shop", instance=instance)
        w.set(at + 0.5, w.minutes, 5000, "process_start_time_seconds", job="shop", instance=instance)
        fail(w, at + 0.5, e, 0.33, job="shop", instance=instance)


@situation("a canary of ten instances fails 60 % of its requests", late=8)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=10)
    fail(w, s, e, 0.6, job="shop", instance="s9:8000")


@situation("30 % of the responses are slow at 500 requests a second", lasts=60, late=45)
def _(w: World, s: float, e: float) -> None:
    busy(w, 50)
    slow(w, s, e, 0.3)


@situation("one of six instances crashes and is restarted every minute", lasts=30, late=8)
def _(w: World, s: float, e: float) -> None:
    w.restarts = True
    second_service(w, instances=6)
    for minute in range(int(s), int(e)):
        down(w, minute, minute + 0.5, job="shop", instance="s4:8000")
        w.set(minute + 0.5, w.minutes, 60 * minute, "process_start_time_seconds", job="shop", instance="s4:8000")


@situation("four instances each with a pool that runs dry for ten minutes", lasts=10, late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 20, "db_pool_connections", state="used")
    w.set(s, e, 0.3, "db_pool_checkout_timeouts_total")
    w.scale(s, e, 0, "db_pool_checkout_wait_seconds_bucket", le=r"0\.1|0\.5|1\.0")
    fail(w, s, e, 0.15)


# PostgreSQL and models


@situation("a replica is 45 seconds behind", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 45, "pg_replication_lag_seconds")


@situation("a session forgets to commit: idle in transaction", lasts=40, late=12)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "postgres", "service": "sightline", "instance": "pg:9187", "datname": "sightline"}
    labels = {"state": "idle in transaction", "usename": "sightline", "application_name": "worker"}
    w.add("pg_stat_activity_max_tx_duration", 0, **own, **labels, backend_type="client backend")
    w.ramp(s, e, 0, 2400, "pg_stat_activity_max_tx_duration", application_name="worker")


@situation("the working set has outgrown the cache: 85 % hits", lasts=40, late=20)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 3600, "pg_stat_database_blks_read")


@situation("one query in fifty fails, at 50 a second", late=10)
def _(w: World, s: float, e: float) -> None:
    busy(w, 5)
    w.set(s, e, 0.5, "db_query_errors_total")


@situation("a model with a call in ten seconds: 30 % fail", late=10)
def _(w: World, s: float, e: float) -> None:
    w.scale(0, w.minutes, 0.2, "llm_requests_total", outcome="success")
    w.scale(s, e, 0.7, "llm_requests_total", outcome="success")
    w.set(s, e, 0.015, "llm_requests_total", outcome="error")


# Hosts


@situation("a disk fills within 15 minutes", lasts=15, late=14)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 0, "node_filesystem_avail_bytes", instance="n1.*", mountpoint="/data")


@situation("logs fill the root disk within four hours", lasts=240, late=220)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 0, "node_filesystem_avail_bytes", instance="n2.*", mountpoint="/")


@situation("sessions as files: inodes run out within three hours", lasts=180, late=160, start=90)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 9e5, 0, "node_filesystem_files_free", instance="n1.*", mountpoint="/")


@situation("memory leaks within 20 minutes", lasts=20, late=19.5)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 5e9, 1e8, "node_memory_MemAvailable_bytes", instance="n2.*")


@situation("the network storage takes 0.4 s for each of three requests a second", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 1.5, "node_disk_(reads|writes)_completed_total", instance="n2.*")
    w.set(s, e, 0.6, "node_disk_(read|write)_time_seconds_total", instance="n2.*")


@situation("a firewall: no host's exporter can be scraped", late=8)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="node")


@situation("a rack without power: a host, the database's exporter and an instance", late=8)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="node", instance="n2.*")
    down(w, s, e, job="postgres")
    down(w, s, e, job="app", instance=B)


# Monitoring


@situation("a label with a value for each user: the scrape is refused", late=8)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="app", instance=A)
    w.set(s, e, 0.07, "prometheus_target_scrapes_exceeded_sample_limit_total")


@situation("rules take longer than their interval", lasts=20, late=12)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.03, "prometheus_rule_group_iterations_missed_total")


@situation("Alertmanager rejects its configuration", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "alertmanager_config_last_reload_successful")
