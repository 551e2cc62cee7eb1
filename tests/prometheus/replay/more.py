"""Still more situations: leaks, partial failures, other environments, other tools, ordinary operations.

They were written when the rules were done, to test them on situations they were not designed for.
"""

from __future__ import annotations

import re

from .situations import A, B, deploy, down, fail, harmless, situation, slow, traffic, vanished
from .variants import second_service
from .world import World

# Faults


@situation("connections leak within an hour", lasts=60, late=57)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 20, 97, "pg_stat_activity_count", state="idle")


@situation("the provider's name is not resolved, and streams end with an error event", late=8)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0, "llm_requests_total", outcome="success")
    w.set(s, e, 0.25, "llm_requests_total", outcome="error")


@situation("packets to the database are lost: some queries wait, some fail", late=15)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0.85, "db_query_duration_seconds_bucket", le=r"0\.1|0\.5|1\.0")
    slow(w, s, e, 0.15)
    fail(w, s, e, 0.02, endpoint="/items|/reports")
    w.set(s, e, 0.1, "db_query_errors_total")


@situation("one of three replicas is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=3)
    slow(w, s, e, 1, job="shop", instance="s1:8000")


@situation("two of three instances fail half of their requests", late=6)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=3)
    fail(w, s, e, 0.5, job="shop", instance="s[12]:8000")


@situation("memory leaks until the kernel kills the service", lasts=60, late=58)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 5e9, 1e8, "node_memory_MemAvailable_bytes", instance="n1.*")
    w.set(e - 0.25, e, 0.1, "node_vmstat_oom_kill", instance="n1.*")
    w.set(e, w.minutes, 9000, "process_start_time_seconds", job="app", instance=A)


@situation("the write-ahead log fills the disk within three hours", lasts=180, late=170)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 60e9, 0, "node_filesystem_avail_bytes", instance="n2.*", mountpoint="/data")


@situation("a disk fills in bursts, 4 GB every three minutes", lasts=45, late=44)
def _(w: World, s: float, e: float) -> None:
    for burst in range(15):
        w.set(s + 3 * burst, e, 56e9 - 4e9 * burst, "node_filesystem_avail_bytes", instance="n1.*", mountpoint="/data")


@situation("all inodes are gone at once", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "node_filesystem_files_free", instance="n1.*", mountpoint="/")


@situation("a clock jumps back by half a minute", lasts=30, late=12)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, -30, "node_timex_offset_seconds", instance="n2.*")


@situation("file descriptors leak within an hour", lasts=60, late=57)
def _(w: World, s: float, e: float) -> None:
    w.ramp(s, e, 50, 1000, "process_open_fds", instance=B)


@situation("latency creeps up: a tenth more of the responses is slow every ten minutes", lasts=60, late=50)
def _(w: World, s: float, e: float) -> None:
    slow_now = 1.0
    for step in range(1, 7):
        target = 1 - step / 10
        slow(w, s + 10 * (step - 1), e, 1 - target / slow_now)
        slow_now = target


@situation("an exporter is away for 20 seconds every two minutes", lasts=30, late=12)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e), 2):
        down(w, minute, minute + 0.25, instance="pg.*")


@situation("one worker hangs: requests begin and never end, and it still answers scrapes", late=6)
def _(w: World, s: float, e: float) -> None:
    traffic(w, s, e, 0, instance=A)
    w.ramp(s, s + 5, 1, 100, "http_requests_in_progress", instance=A, endpoint="/items")
    w.set(s + 5, e, 100, "http_requests_in_progress", instance=A, endpoint="/items")


@situation("a second model of the same provider starts late", late=12)
def _(w: World, s: float, e: float) -> None:
    for series in list(w.find("llm_.*", model="large")):
        w.series[series.replace('model="large"', 'model="small"')] = w.series[series]
    late = r"0\.1|0\.5|1\.0|5\.0"
    w.scale(s, e, 0, "llm_time_to_first_token_seconds_bucket", model="small", le=late)


@situation("a release without the middleware: scraped, but no metrics of requests", late=8)
def _(w: World, s: float, e: float) -> None:
    for series in list(w.find("http_.*", job="app")):
        w.series[series] = list(w._changed(w.series[series], s, e, lambda _: None))


def environments(world: World) -> None:
    """The second service, in two environments."""
    second_service(world, instances=2)
    for series in [one for one in world.series if 'job="shop"' in one]:
        number = re.search(r'instance="s(\d)', series)
        assert number
        name = ("production", "staging")[int(number[1])]
        world.series[series.replace('job="shop"', f'job="shop", environment="{name}"')] = world.series.pop(series)


@situation("the production targets vanish, those of staging stay", late=8)
def _(w: World, s: float, e: float) -> None:
    environments(w)
    vanished(w, s, e, job="shop", environment="production")


@situation("production fails wholly, staging does not", late=6)
def _(w: World, s: float, e: float) -> None:
    environments(w)
    fail(w, s, e, 1, job="shop", environment="production")


@situation("the password of the exporter is no longer right", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0, "pg_up", instance="pg.*")
    for series in list(w.find("pg_(stat|settings).*", instance="pg.*")):
        w.series[series] = list(w._changed(w.series[series], s, e, lambda _: None))


# Healthy


@harmless("a job every ten minutes: five times the traffic and busy processors for one", lasts=60)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e), 10):
        traffic(w, minute, minute + 1, 5)
        w.set(minute, minute + 1, 0.05, "node_cpu_seconds_total", mode="idle")
        w.set(minute, minute + 1, 3, "node_load[15]")


@harmless("two deploys within ten minutes", lasts=15)
def _(w: World, s: float, e: float) -> None:
    for number, minute in enumerate((s, s + 8)):
        deploy(w, minute, number)


@harmless("a weekend: a hundredth of the traffic, single requests fail", lasts=60)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.01)
    for minute in range(int(s), int(e), 20):
        fail(w, minute, minute + 0.25, 0.4, endpoint="/items")


@harmless("a bulk import of half an hour", lasts=30)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 800, "pg_stat_database_blks_read")
    w.set(s, e, 60_000, "pg_stat_database_blks_hit")
    w.ramp(s, s + 4, 0, 240, "pg_stat_activity_max_tx_duration", application_name="", state="active")
    w.set(s, e, 300, "node_disk_writes_completed_total")
    w.set(s, e, 6, "node_disk_write_time_seconds_total")
    w.set(s, e, 0.97, "node_disk_io_time_seconds_total")
    w.set(s, e, 6, "node_disk_io_time_weighted_seconds_total")
    w.ramp(s, e, 60e9, 48e9, "node_filesystem_avail_bytes", mountpoint="/data")


def maintenance(world: World, start: float, end: float, application: str) -> None:
    """A transaction of this program that is open all the time."""
    own = {"job": "postgres", "service": "sightline", "instance": "pg:9187", "datname": "sightline"}
    labels = {"state": "active", "usename": "postgres", "application_name": application}
    world.add("pg_stat_activity_max_tx_duration", 0, **own, **labels, backend_type="client backend")
    span = 60 * (end - start)
    world.ramp(start, end, 0, span, "pg_stat_activity_max_tx_duration", application_name=re.escape(application))


@harmless("pgBackRest takes its base backup of half an hour", lasts=30)
def _(w: World, s: float, e: float) -> None:
    maintenance(w, s, e, "pgBackRest [backup]")


@harmless("vacuumdb at night, for 40 minutes", lasts=40)
def _(w: World, s: float, e: float) -> None:
    maintenance(w, s, e, "vacuumdb")


@harmless("the targets of a service get a label more", lasts=30)
def _(w: World, s: float, e: float) -> None:
    for series in list(w.find(".*", job="app")):
        value = w.series[series][0][1]
        w.series[series] = [(s, value), (w.minutes, None)]
        w.series[series.replace('job="app"', 'job="app", environment="production"')] = [(s, None), (w.minutes, value)]


@harmless("six instances at noon, two in the evening", lasts=40)
def _(w: World, s: float, e: float) -> None:
    second_service(w, instances=6)
    for number in range(2, 6):
        for series in list(w.find(".*", job="shop", instance=f"s{number}:8000")):
            value = w.series[series][0][1]
            w.series[series] = [(s + number, None), (s + 20 + number, value), (w.minutes, None)]


@harmless("a service whose metrics another library makes, with the same names", lasts=30)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "legacy", "instance": "l:8000"}
    w.add("up", 1, **own)
    for handler in ("/a", "/b"):
        for status, rate in (("2xx", 1), ("4xx", 0.1), ("5xx", 0)):
            w.add("http_requests_total", rate, **own, handler=handler, method="GET", status=status)
        for le, rate in (("0.1", 0.9), ("0.5", 1), ("1", 1), ("+Inf", 1)):
            w.add("http_request_duration_seconds_bucket", rate, **own, handler=handler, method="GET", le=le)
        w.add("http_request_duration_seconds_count", 1, **own, handler=handler, method="GET")
        w.add("http_request_duration_seconds_sum", 0.1, **own, handler=handler, method="GET")


@harmless("another SLO tool records its series of the same service", lasts=30)
def _(w: World, s: float, e: float) -> None:
    own = {"job": "app", "service": "sightline", "slo": "availability"}
    w.add("slo:objective:ratio", 0.999, **own, sloth_slo="requests")
    w.add("slo:sli_error:ratio_rate5m", 0.0005, **own, sloth_slo="requests", sloth_window="5m")
    w.add("http_requests:burnrate5m", 0.0005, **own)
    w.add("http_requests:increase4w", 1e6, **own)


@harmless("a clock is 80 ms off for a minute", lasts=5)
def _(w: World, s: float, e: float) -> None:
    w.set(s, s + 1, 0.08, "node_timex_offset_seconds")
