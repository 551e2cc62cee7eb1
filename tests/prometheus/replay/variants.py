"""Further situations: other rates, several jobs, instances and exporters, gaps, restarts, nights, releases.

Each varies one of services.py, servers.py or health.py, for a service that is built or used differently.
"""

from __future__ import annotations

from .situations import A, B, down, fail, harmless, situation, slow, traffic, vanished
from .world import World, histogram

SECOND = {"job": "shop", "service": "shop"}


def second_service(world: World, instances: int = 1, rate: float = 1) -> None:
    """Another service in the same Prometheus, with one endpoint."""
    for number in range(instances):
        own = {**SECOND, "instance": f"s{number}:8000"}
        world.add("up", 1, **own)
        world.add("process_start_time_seconds", 1000, **own)
        labels = {**own, "method": "GET", "endpoint": "/items"}
        world.add("http_requests_total", rate, **labels, status_code="200")
        world.add("http_requests_total", 0, **labels, status_code="500")
        histogram(world, "http_request_duration_seconds", rate, 0.1, **labels)
        histogram(world, "http_response_start_seconds", rate, 0.1, **labels)


def without(world: World, **labels: str) -> None:
    """An exporter that was never there."""
    for series in list(world.find(".*", **labels)):
        del world.series[series]


# Faults


@situation("the second of two services is down", late=5)
def _(w: World, s: float, e: float) -> None:
    second_service(w)
    down(w, s, e, job="shop")


@situation("the second of two services fails wholly", late=5)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=3)
    fail(w, s, e, 1, job="shop")


@situation("one of ten instances fails", late=6)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=10)
    fail(w, s, e, 1, job="shop", instance="s3:8000")


@situation("a service with one request in five seconds fails wholly", late=6)
def _(w: World, s: float, e: float) -> None:
    second_service(w, rate=0.2)
    fail(w, s, e, 1, job="shop")


@situation("2 % of the only endpoint, at one request a second", lasts=90, late=60)
def _(w: World, s: float, e: float) -> None:
    second_service(w)
    fail(w, s, e, 0.02, job="shop")


@situation("every request fails, without any exporter but the service", late=4)
def _(w: World, s: float, e: float) -> None:
    without(w, job="node|postgres|alertmanager")
    fail(w, s, e, 1)


@situation("every request fails in a service of five minutes", late=5, start=5)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("a release: restarts, then half of the requests fail", late=5)
def _(w: World, s: float, e: float) -> None:
    for instance in (A, B):
        down(w, s - 1, s, job="app", instance=instance)
    fail(w, s, e, 0.5)


@situation("an outage of two minutes", lasts=2, late=2)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("every request fails while a third of the scrapes is lost", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)
    for quarter in range(int(4 * s), int(4 * e), 3):
        down(w, quarter / 4, (quarter + 1) / 4, job="app", instance=A)


@situation("two endpoints fail", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, endpoint="/reports|/chat")


@situation("everything is slow in a service with one instance", late=10)
def _(w: World, s: float, e: float) -> None:
    second_service(w)
    slow(w, s, e, 1, job="shop")


@situation("all of three hosts' exporters vanish", late=10)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="node")


@situation("a host is gone: exporter and one instance", late=8)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="node", instance="n2.*")
    down(w, s, e, job="app", instance=B)


@situation("a root disk fills up within two hours", lasts=120, late=110)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 0, "node_filesystem_avail_bytes", instance="n1.*", mountpoint="/")


@situation("a replica stops: its lag grows a second a second", lasts=30, late=6)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 1800, "pg_replication_lag_seconds")


@situation("a second model of the same provider is down", late=8)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "app", "service": "sightline", "instance": A, "provider": "openai", "model": "small"}
    w.add("llm_requests_total", 0.2, **own, operation="chat", outcome="success")
    w.add("llm_requests_total", 0, **own, operation="chat", outcome="error")
    w.set(s, e, 0, "llm_requests_total", model="small", outcome="success")
    w.set(s, e, 0.2, "llm_requests_total", model="small", outcome="error")


@situation("PostgreSQL is down and the service, too", late=4, tail=45)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "pg_up", instance="pg.*")
    down(w, s + 1, e, job="app")


@situation("memory runs out, and the kernel kills the service", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 4, 3e8, "node_memory_MemAvailable_bytes", instance="n1.*")
    w.set(s + 4, s + 4.25, 0.1, "node_vmstat_oom_kill", instance="n1.*")


# Healthy


@harmless("two services, one without traffic", lasts=30)
def _(w: World, s: float, e: float) -> None:
    second_service(w, rate=0)


@harmless("a second service is new", lasts=30)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=2)
    for series in list(w.find(".*", job="shop")):
        value = w.series[series][0][1]
        w.series[series] = [(s, None), (w.minutes, value)]


@harmless("counters start anew: each instance restarts once an hour", lasts=60)
def _(w: World, s: float, e: float) -> None:
    for offset, instance in ((0, A), (30, B)):
        down(w, s + offset, s + offset + 0.5, job="app", instance=instance)
        w.set(s + offset + 0.5, w.minutes, 6000 + offset, "process_start_time_seconds", job="app", instance=instance)


@harmless("five instances become two at night", lasts=30)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=5)
    for number in (2, 3, 4):
        vanished(w, s + number, w.minutes, job="shop", instance=f"s{number}:8000")


@harmless("a night at 0.01 requests a second: one in ten is slow", lasts=60)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.001)
    slow(w, s, e, 0.1)


@harmless("a batch job: processors and disk for eight minutes", lasts=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.05, "node_cpu_seconds_total", instance="n1.*", mode="idle")
    w.set(s, e, 3, "node_load[15]", instance="n1.*")
    w.set(s, e, 0.95, "node_disk_io_time_seconds_total", instance="n1.*")


@harmless("single scrapes are lost", lasts=30)
def _(w: World, s: float, e: float) -> None:
    for offset, instance in ((0, A), (8, B), (17, A), (25, B)):
        down(w, s + offset, s + offset + 0.25, job="app", instance=instance)


@harmless("no database and no model in the service", lasts=30)
def _(w: World, s: float, e: float) -> None:
    without(w, job="postgres")
    for series in list(w.find("(db|llm)_.*")):
        del w.series[series]


@harmless("answers of a model take ten seconds, streamed", lasts=30)
def _(w: World, s: float, e: float) -> None:
    w.scale(0, w.minutes, 0, "http_request_duration_seconds_bucket", endpoint="/chat", le="5.0")


@harmless("traffic doubles within a minute and stays", lasts=30)
def _(w: World, s: float, e: float) -> None:
    traffic(w, s, w.minutes, 2)
    w.scale(s, w.minutes, 2, "(db|llm)_.*_(total|bucket|count|sum)")


@harmless("a migration writes half of the free space", lasts=20)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 15, 90e9, 50e9, "node_filesystem_avail_bytes", mountpoint="/data")
    w.set(s + 15, w.minutes, 50e9, "node_filesystem_avail_bytes", mountpoint="/data")


@harmless("a large transaction: the replica lags for up to 25 seconds", lasts=3)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 0, 25, "pg_replication_lag_seconds")


@harmless("an archive takes a quarter of the inodes and is deleted", lasts=20)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, s + 5, 9e5, 6.6e5, "node_filesystem_files_free", mountpoint="/data")
    w.set(s + 5, s + 12, 6.6e5, "node_filesystem_files_free", mountpoint="/data")


@harmless("memory, connections and network errors peak for a minute", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 1, 6e8, "node_memory_MemAvailable_bytes", instance="n1.*")
    w.set(s, s + 1, 85, "pg_stat_activity_count", state="idle")
    w.set(s, s + 0.5, 60, "node_network_receive_errs_total", instance="n1.*")


@harmless("a restart of the database exporter takes 50 seconds", lasts=5)
def _(w: World, s: float, e: float) -> None:
    down(w, s, s + 0.75, instance="pg.*")
