"""Other shapes: slow and short faults, single methods, other levels to begin with, and routine that takes hours."""

from __future__ import annotations

from functools import partial

from .days import DAY, days, visits
from .more import maintenance
from .operations import DISK
from .situations import A, B, deploy, down, fail, flap, harmless, situation, slow, traffic, vanished
from .world import World

INODES = "node_filesystem_files_free"


# Targets


@situation("a host's exporter vanishes, twelve minutes later the database's", lasts=30, late=8)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="node", instance="n2.*")
    vanished(w, s + 12, e, job="postgres", instance="pg.*")


@situation("flapping: 40 s up, 40 s down", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    flap(w, s, e, every=1.33, minutes=0.67, instance=B)


@situation("a new release crashes within half a minute, again and again, while the old ones serve", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    w.restarts = True
    own = {"job": "app", "service": "sightline", "instance": "c:8000"}
    w.add("up", None, **own)
    w.add("process_start_time_seconds", None, **own)
    for minute in range(int(s), int(e)):
        w.set(minute, minute + 0.5, 1, "up", instance="c:8000")
        w.set(minute + 0.5, minute + 1, 0, "up", instance="c:8000")
        w.set(minute, minute + 0.5, 60 * minute, "process_start_time_seconds", instance="c:8000")


@situation("Alertmanager vanishes from discovery", late=8)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="alertmanager")
    w.set(s, e, 0, "prometheus_notifications_alertmanagers_discovered")
    w.set(s, e, 0.1, "prometheus_notifications_dropped_total")


# HTTP


@situation("an outage of 90 seconds", lasts=1.5, late=1.5)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("3 % of one method fail", lasts=60, late=20)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.03, endpoint="/items", method="POST")


@situation("a method with 1 % of the traffic fails wholly", lasts=30, late=8)
def _(w: World, s: float, e: float) -> None:
    for status, rate in (("200", 0.05), ("500", 0)):
        for instance in (A, B):
            own = {"job": "app", "service": "sightline", "instance": instance}
            w.add("http_requests_total", rate, **own, method="DELETE", endpoint="/items", status_code=status)
    w.set(s, e, 0, "http_requests_total", method="DELETE", status_code="200")
    w.set(s, e, 0.05, "http_requests_total", method="DELETE", status_code="500")


@situation("four GET and four POST in five minutes are all that an endpoint gets, and fail", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "app", "service": "sightline", "instance": A, "endpoint": "/imports"}
    for method in ("GET", "POST"):
        for status, rate in (("200", 4 / 300), ("500", 0)):
            w.add("http_requests_total", rate, **own, method=method, status_code=status)
    w.set(s, e, 0, "http_requests_total", endpoint="/imports", status_code="200")
    w.set(s, e, 4 / 300, "http_requests_total", endpoint="/imports", status_code="500")


@situation("an endpoint with 2 % of the traffic is slow", late=8)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.4, endpoint="/reports")
    slow(w, s, e, 1, endpoint="/reports")


@situation("half a minute of each three all requests fail", lasts=30, late=6)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e), 3):
        fail(w, minute, minute + 0.5, 1)


@situation("scrapes every 30 seconds: an outage of two minutes", lasts=2, late=2, step=30)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("scrapes every 30 seconds: 2 % of an endpoint fail", lasts=60, late=30, step=30)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.02, endpoint="/items", method="GET")


# Databases and models


@situation("a replica falls behind, two seconds a minute", lasts=60, late=30)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 120, "pg_replication_lag_seconds")


@situation("calls of one of two models hang", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    for series in list(w.find("llm_.*", model="large")):
        w.series[series.replace('model="large"', 'model="small"')] = w.series[series]
    w.scale(s, e, 0, "llm_requests_total", model="small")
    w.set(s, e, 10, "llm_requests_in_progress", model="small")


@situation("a loop spends 25 dollars an hour", lasts=40, late=35)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 25 / 3600 / 2, "llm_cost_usd_total")


# Disks. From a start with hours of history: what a day ahead looks at is the day before.


@situation("a disk fills within twelve hours", lasts=12 * 60, late=10 * 60, start=120, step=60)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 0, DISK, instance="n1.*", mountpoint="/data")


@situation("an empty disk fills within a day", lasts=24 * 60, late=20 * 60, start=120, step=60)
def _(w: World, s: float, e: float) -> None:
    w.set(0, s, 90e9, DISK, instance="n1.*", mountpoint="/data")
    w.ramp(s, e, 90e9, 0, DISK, instance="n1.*", mountpoint="/data")


@situation("a disk fills in steps every half hour", lasts=14 * 60, late=10 * 60, start=120, step=60)
def _(w: World, s: float, e: float) -> None:
    w.set(0, s, 70e9, DISK, instance="n1.*", mountpoint="/data")
    for step in range(28):
        w.set(s + 30 * step, w.minutes, (67.5 - 2.5 * step) * 1e9, DISK, instance="n1.*", mountpoint="/data")


@situation("inodes run out within 25 minutes", lasts=25, late=24, start=90)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 9e5, 0, INODES, instance="n1.*", mountpoint="/data")


@situation("inodes run out within twelve hours", lasts=12 * 60, late=10 * 60, start=120, step=60)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 9e5, 0, INODES, instance="n1.*", mountpoint="/data")


# Healthy


@harmless("a backup of three hours: pg_dump writes a tenth of the disk, which is deleted", lasts=190, step=30)
def _(w: World, s: float, e: float) -> None:
    maintenance(w, s, e, "pg_dump")
    w.ramp(s, s + 180, 60e9, 50e9, DISK, mountpoint="/data", instance="n1.*")
    w.set(s + 180, e, 50e9, DISK, mountpoint="/data", instance="n1.*")
    w.set(s, e, 0.85, "node_disk_io_time_seconds_total", instance="n1.*")
    w.set(s, e, 6000, "pg_stat_database_blks_read")


@harmless(
    "the backup of each night: a quarter of the disk within two hours, deleted in the morning",
    lasts=26 * 60,
    tail=0,
    start=60,
    step=60,
)
def _(w: World, s: float, e: float) -> None:
    for night in (0, DAY):
        w.ramp(night, night + 40, 50e9, 45e9, DISK, mountpoint="/data", instance="n1.*")
        if night:
            w.ramp(night + 40, e, 45e9, 30e9, DISK, mountpoint="/data", instance="n1.*")
        else:
            w.set(40, 200, 26e9, DISK, mountpoint="/data", instance="n1.*")


def backup(w: World, at: float, first: float, last: float) -> None:
    """Two hours of writing, deleted eight hours after its end."""
    w.ramp(at, at + 120, first, last, DISK, mountpoint="/data", instance="n1.*")
    w.set(at + 120, min(at + 600, w.minutes), last, DISK, mountpoint="/data", instance="n1.*")


a_week_later = partial(harmless, lasts=12 * 60, tail=0, start=7 * DAY + 600, step=300, alerts="HostDisk.*")


@a_week_later("the full backup of each week: a quarter of the disk within two hours, deleted in the morning")
def _(w: World, s: float, e: float) -> None:
    backup(w, s - 7 * DAY, 60e9, 36e9)
    backup(w, s, 60e9, 35e9)


@a_week_later("a Monday's backup after a weekend without: a fifth of the disk, deleted in the morning")
def _(w: World, s: float, e: float) -> None:
    for day in (0, 1, 2, 3, 4, 7):
        backup(w, s + (day - 7) * DAY, 60e9, (41 - day / 7) * 1e9)


@harmless("a database is restored onto an empty disk: a third of it within 40 minutes", lasts=150, start=90)
def _(w: World, s: float, e: float) -> None:
    w.set(0, s, 90e9, DISK, instance="n1.*", mountpoint="/data")
    w.ramp(s, s + 40, 90e9, 60e9, DISK, instance="n1.*", mountpoint="/data")
    w.set(s + 40, w.minutes, 60e9, DISK, instance="n1.*", mountpoint="/data")


@harmless("logs rotate every two hours: a tenth of the disk", lasts=10 * 60, start=150, step=60)
def _(w: World, s: float, e: float) -> None:
    for at in range(0, int(w.minutes), 120):
        w.ramp(at, min(at + 120, w.minutes), 48e9, 38e9, DISK, mountpoint="/")


@harmless("the weekly batch: two hours of busy processors, a busy disk and ten times the rows", lasts=120, step=30)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.12, "node_cpu_seconds_total", instance="n1.*", mode="idle")
    w.set(s, e, 3, "node_load[15]", instance="n1.*")
    w.set(s, e, 0.9, "node_disk_io_time_seconds_total", instance="n1.*")
    w.scale(s, e, 10, "pg_stat_database_blks_hit")


@harmless("a deploy every ten minutes, for an hour", lasts=60)
def _(w: World, s: float, e: float) -> None:
    w.restarts = True
    for number, minute in enumerate(range(int(s), int(e), 10)):
        deploy(w, minute, number)


@harmless("a night with a request a minute: one returns 500", lasts=40)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.0017)
    w.set(s, s + 0.25, 1 / 15, "http_requests_total", instance=A, endpoint="/items", method="GET", status_code="500")


@harmless(
    "the clocks change: the traffic of each hour comes an hour later",
    lasts=DAY,
    tail=0,
    start=8 * DAY - 60,
    step=300,
    alerts="HttpTrafficVanished",
)
def _(w: World, s: float, e: float) -> None:
    days(w, 20)
    name = next(w.find("job_slo:requests:rate1m", job="days"))
    late = [(until + 60, value) for until, value in w.series[name]]
    before = [piece for piece in w.series[name] if piece[0] <= s]
    w.series[name] = before + [piece for piece in late if s < piece[0] <= w.minutes]


@harmless("a new endpoint: its first request is an error", lasts=30)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "app", "service": "sightline", "instance": A, "method": "POST", "endpoint": "/refunds"}
    for status, rate in (("500", 0), ("200", 0.2)):
        w.add("http_requests_total", rate, **own, status_code=status)
        name = next(w.find("http_requests_total", endpoint="/refunds", status_code=status))
        first = 1 / 15 if status == "500" else rate
        w.series[name] = [(s, None), (s + 0.25, first), (w.minutes, rate)]


@harmless("the model's prices triple", lasts=60)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, w.minutes, 3, "llm_cost_usd_total")


@harmless("a host is rebooted: its exporter and an instance are away for 50 seconds", lasts=3)
def _(w: World, s: float, e: float) -> None:
    down(w, s, s + 0.75, job="node", instance="n2.*")
    down(w, s, s + 0.75, job="app", instance=B)


@harmless("the primary fails over: the replica lags for 20 seconds and becomes the primary", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 0.25, 0, 20, "pg_replication_lag_seconds")
    w.set(s + 0.5, w.minutes, 0, "pg_replication_is_replica")
    fail(w, s, s + 0.25, 0.1)


@harmless("scrapes every 30 seconds: single requests fail, of one method", lasts=60, step=30)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.1, endpoint="/reports")
    for minute in range(int(s), int(e), 15):
        w.set(minute, minute + 0.5, 1 / 30, "http_requests_total", instance=A, endpoint="/reports", status_code="500")


@harmless("a third of one client's requests are refused with 422", lasts=30)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "app", "service": "sightline", "instance": A, "method": "POST", "endpoint": "/items"}
    w.add("http_requests_total", 0, **own, status_code="422")
    w.set(s, e, 0.5, "http_requests_total", status_code="422")


@harmless(
    "a Monday after a holiday: the traffic is back within the hour",
    lasts=12 * 60,
    tail=0,
    start=8 * DAY + 360,
    step=300,
    alerts="HttpTrafficVanished",
)
def _(w: World, s: float, e: float) -> None:
    days(w, 50)
    visits(w, 7 * DAY, 8 * DAY + 300, 0.2)
