"""Incidents and routine with other numbers: rates, shares, durations, instances, and starts between two scrapes."""

from __future__ import annotations

from functools import partial

from .operations import DISK
from .shapes import INODES
from .situations import A, B, down, fail, flap, harmless, situation, slow, traffic, vanished
from .sizes import busy
from .variants import second_service
from .world import World

BETWEEN = 30.2  # minutes: a start between two scrapes, of which the next sees three seconds of it
between = partial(situation, start=BETWEEN)
quiet = partial(harmless, start=BETWEEN)


@between("one of three instances flaps: 100 s up, 50 s down", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=3)
    while s < e:
        down(w, s, s + 0.83, job="shop", instance="s1:8000")
        s += 2.5


@between("a crash loop that backs off: 10, 20, 40, 80, 160 seconds and more", lasts=30, late=12)
def _(w: World, s: float, e: float) -> None:
    for wait in (10, 20, 40, 80, 160, 300):
        flap(w, s, s + 0.1, every=10, minutes=wait / 60)
        s += wait / 60 + 0.25
        w.set(s - 0.25, w.minutes, 60 * s, "process_start_time_seconds", job="app", instance=A)


@between("the second of two services vanishes from discovery", late=6)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=2)
    vanished(w, s, e, job="shop")


@between("a canary with a request a minute fails wholly, the others serve two a second", lasts=30, late=15)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=3, rate=0.66)
    traffic(w, 0, w.minutes, 1 / 40, job="shop", instance="s2:8000")
    fail(w, s, e, 1, job="shop", instance="s2:8000")


@between("a canary with 1 % of 300 requests a second fails for three quarters", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    busy(w, 30)
    traffic(w, 0, w.minutes, 0.02, instance=B)
    fail(w, s, e, 0.75, instance=B)


@between("a method that is asked twice a minute becomes slow", lasts=40, late=20)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 1 / 30, endpoint="/items", method="POST")
    slow(w, s, e, 1, endpoint="/items", method="POST")


@between("2 % of an endpoint with 20 requests a second fail", lasts=90, late=45)
def _(w: World, s: float, e: float) -> None:
    busy(w, 2.5)
    fail(w, s, e, 0.02, endpoint="/items", method="GET")


@between("a request in seven seconds, and nine of ten fail", late=8)
def _(w: World, s: float, e: float) -> None:
    second_service(w, rate=1 / 7)
    fail(w, s, e, 0.9, job="shop")


@between("a disk fills from 45 % to nothing within ten minutes", lasts=10, late=9)
def _(w: World, s: float, e: float) -> None:
    w.set(0, s, 45e9, DISK, instance="n1.*", mountpoint="/data")
    w.ramp(s, e, 45e9, 0, DISK, instance="n1.*", mountpoint="/data")


@between("inodes run out within 90 minutes, from a half", lasts=90, late=80)
def _(w: World, s: float, e: float) -> None:
    w.set(0, s, 5e5, INODES, instance="n1.*", mountpoint="/data")
    w.ramp(s, e, 5e5, 0, INODES, instance="n1.*", mountpoint="/data")


@between("a replica falls behind, ten seconds a minute", lasts=20, late=8)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 200, "pg_replication_lag_seconds")


@between("a replica falls behind, a second a minute", lasts=60, late=20)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 60, "pg_replication_lag_seconds")


@between("95 % of the processors of both hosts for an hour", lasts=60, late=25)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.05, "node_cpu_seconds_total", mode="idle")
    w.set(s, e, 7, "node_load[15]")


@between("3 % of the packets are damaged", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 60, "node_network_transmit_errs_total", instance="n2.*")


@between("PostgreSQL is down for 90 seconds", lasts=1.5, late=1.5, tail=30)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "pg_up", instance="pg.*")
    fail(w, s, e, 0.9, endpoint="/items|/reports")


@between("a loop spends 100 dollars an hour, Prometheus is five minutes old", lasts=30, late=10, start=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 100 / 3600 / 2, "llm_cost_usd_total")


@quiet("a restart of 50 seconds")
def _(w: World, s: float, e: float) -> None:
    down(w, s, s + 1, job="app")


@quiet("a large transaction: the replica lags for up to 40 seconds, and catches up", lasts=5)
def _(w: World, s: float, e: float) -> None:
    for step, lag in enumerate((15, 30, 40, 12)):
        w.set(s + step / 4, s + (step + 1) / 4, lag, "pg_replication_lag_seconds")


@quiet("the primary wakes after an hour: one scrape shows the pause as lag", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 0.25, 3600, "pg_replication_lag_seconds")


@quiet("a replica with much to do: between 2 and 9 seconds behind, for an hour", lasts=60)
def _(w: World, s: float, e: float) -> None:
    for minute, lag in enumerate((2, 5, 7, 9, 6, 3) * 10):
        w.set(s + minute, s + minute + 1, lag, "pg_replication_lag_seconds")


@quiet("Prometheus loads its configuration anew: at one scrape it knows no Alertmanager", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 0.25, 0, "prometheus_notifications_alertmanagers_discovered")
    w.set(s, w.minutes, 60 * s, "prometheus_config_last_reload_success_timestamp_seconds")


@quiet("a night with a request in twenty seconds: one in ten fails, for an hour", lasts=60)
def _(w: World, s: float, e: float) -> None:
    second_service(w, rate=0.05)
    for at in range(int(s), int(e), 4):  # not at once, so not an outage
        w.set(at, at + 0.25, 0.005 * 4 * 4 / 6, "http_requests_total", job="shop", status_code="500")


@quiet("a deploy fails nearly half of the requests for 20 seconds", lasts=5)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, s + 0.25, 0.49)


@quiet("a load test of ten minutes with forty times the traffic", lasts=10)
def _(w: World, s: float, e: float) -> None:
    traffic(w, s, e, 40)
    w.scale(s, e, 40, "(db|llm)_(?!cost).*_(total|bucket|count|sum)")
    w.set(s, e, 16, "db_pool_connections", state="used")


@quiet("pg_dump for two hours, twelve minutes after the hour", lasts=120, step=30)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 7200, "pg_stat_activity_max_tx_duration", application_name="pg_dump", state="active")
    w.set(s, e, 9000, "pg_stat_database_blks_read")
    w.ramp(s, e, 60e9, 52e9, DISK, mountpoint="/data", instance="n1.*")
