"""A healthy service with its database, host and monitoring as Prometheus sees it, and means to break parts of it.

A series is a list of pieces `(until, value)`: until which minute it has which value; a counter's value is its rate per
second, and None means that it is not there. promtool's notation follows from the pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

STEP = 15  # seconds from scrape to scrape
COUNTER = re.compile(r"_(total|count|sum|bucket)$|^pg_stat_database_|^node_vmstat_")
GAUGES = {"pg_stat_activity_count"}
Piece = tuple[float, float | None]


def is_counter(name: str) -> bool:
    return bool(COUNTER.search(name)) and name not in GAUGES


@dataclass
class World:
    """The series of a situation: name with labels -> pieces."""

    minutes: float
    series: dict[str, list[Piece]] = field(default_factory=dict)
    step: float = STEP
    """Seconds from scrape to scrape."""
    restarts: bool = False
    """Counters that come back begin at 0, as after a restart; else they go on, as after lost scrapes."""
    sparse: float = 0
    """Until this minute only one sample a minute is written: promtool takes 10,000 of a series at most."""

    def add(self, name: str, value: float | None, **labels: Any) -> None:
        text = ", ".join(f'{label}="{value}"' for label, value in labels.items())
        self.series[f"{name}{{{text}}}"] = [(self.minutes, value)]

    def find(self, name: str, **labels: str) -> Iterator[str]:
        """The series whose name and labels match these regular expressions (an absent label is empty)."""
        for series in self.series:
            own, _, rest = series.partition("{")
            present = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            matches = all(re.fullmatch(pattern, present.get(label, "")) for label, pattern in labels.items())
            if re.fullmatch(name, own) and matches:
                yield series

    def change(self, start: float, end: float, to: Callable[[float], float | None], name: str, **labels: str) -> None:
        """From minute `start` to `end`, each value of the series becomes `to(value)`."""
        found = list(self.find(name, **labels))
        assert found, f"no series {name} {labels}"
        for series in found:
            self.series[series] = list(self._changed(self.series[series], start, end, to))

    def _changed(
        self, pieces: list[Piece], start: float, end: float, to: Callable[[float], float | None]
    ) -> Iterator[Piece]:
        since = 0.0
        for until, value in pieces:
            for a, b, inside in (
                (since, min(until, start), False),
                (max(since, start), min(until, end), True),
                (max(since, end), until, False),
            ):
                if b > a:
                    yield b, (to(value) if value is not None else to(0)) if inside else value
            since = until

    def set(self, start: float, end: float, value: float | None, name: str, **labels: str) -> None:
        self.change(start, end, lambda _: value, name, **labels)

    def scale(self, start: float, end: float, factor: float, name: str, **labels: str) -> None:
        self.change(start, end, lambda value: value * factor, name, **labels)

    def gone(self, start: float, end: float, **labels: str) -> None:
        """No series of these targets; `up` stays, to be set or removed by who calls."""
        for series in list(self.find(".*", **labels)):
            if not series.startswith("up{"):
                self.series[series] = list(self._changed(self.series[series], start, end, lambda _: None))

    def input_series(self) -> list[dict[str, str]]:
        return [{"series": name, "values": self._values(name, pieces)} for name, pieces in self.series.items()]

    def _values(self, name: str, pieces: list[Piece]) -> str:
        counter = is_counter(name.partition("{")[0])
        parts, at, total, present = [], 0, 0.0, False
        for until, value in pieces:
            count = round(until * 60 / self.step) - at
            at += count
            if count <= 0:
                continue
            if value is not None and (sparse := min(count, round(self.sparse * 60 / self.step) - at + count)) > 0:
                step = value * self.step if counter else 0
                first = total + step if counter else value
                parts += [f"{first + number * step:.9g} _x3" for number in range(0, sparse - 3, 4)]
                parts += ["_"] * (sparse % 4)
                total += step * sparse
                count -= sparse
                present = True
            if not count:
                continue
            if value is None:
                if present:
                    parts.append("stale")
                    count -= 1
                if count:
                    parts.append(f"_x{count - 1}" if count > 1 else "_")
                present = False
                if self.restarts:
                    total = 0.0
                continue
            present = True
            if counter:
                increase = value * self.step
                parts.append(f"{total + increase!r}+{increase!r}x{count - 1}")
                for _ in range(count):  # as promtool adds them up: a sum that is less by a rounding is a reset
                    total += increase
            else:
                parts.append(f"{value:.9g}x{count - 1}")
        return " ".join(parts)

    def ramp(self, start: float, end: float, first: float, last: float, name: str, **labels: str) -> None:
        """A gauge that goes in a straight line, minute by minute."""
        minutes = max(int(end - start), 1)
        for minute in range(minutes):
            value = first + (last - first) * (minute + 1) / minutes
            self.set(start + minute, start + minute + 1, value, name, **labels)


BOUNDS = (0.1, 0.5, 1.0, 5.0, 30.0)
APP = {"job": "app", "service": "sightline"}
INSTANCES = ("a:8000", "b:8000")
ENDPOINTS = (("GET", "/items", 4.0), ("POST", "/items", 0.5), ("GET", "/reports", 0.25), ("POST", "/chat", 0.25))


def histogram(world: World, name: str, rate: float, mostly_below: float, **labels: Any) -> None:
    """A histogram whose observations lie below `mostly_below`."""
    for bound in BOUNDS:
        world.add(f"{name}_bucket", rate if bound >= mostly_below else 0, **labels, le=bound)
    world.add(f"{name}_bucket", rate, **labels, le="+Inf")
    world.add(f"{name}_count", rate, **labels)
    world.add(f"{name}_sum", rate * mostly_below / 2, **labels)


def healthy(minutes: float) -> World:
    """Two instances with ten requests a second in all, PostgreSQL, two hosts, Prometheus and Alertmanager."""
    world = World(minutes)
    for instance in INSTANCES:
        own = {**APP, "instance": instance}
        world.add("up", 1, **own)
        world.add("process_start_time_seconds", 1000, **own)
        world.add("scrape_duration_seconds", 0.02, **own)
        world.add("process_open_fds", 50, **own)
        world.add("process_max_fds", 1000, **own)
        world.add("http_requests_total", 0.07, **own, method="GET", endpoint="/metrics", status_code="200")
        for method, endpoint, rate in ENDPOINTS:
            labels = {**own, "method": method, "endpoint": endpoint}
            world.add("http_requests_total", rate, **labels, status_code="200")
            world.add("http_requests_total", 0, **labels, status_code="500")
            world.add("http_requests_in_progress", 1, **labels)
            histogram(world, "http_request_duration_seconds", rate, 5.0 if endpoint == "/chat" else 0.1, **labels)
            histogram(world, "http_response_start_seconds", rate, 1.0 if endpoint == "/chat" else 0.1, **labels)
        pool = {**own, "pool": "main"}
        world.add("db_pool_connections", 2, **pool, state="used")
        world.add("db_pool_connections", 3, **pool, state="idle")
        world.add("db_pool_connections_max", 20, **pool)
        world.add("db_pool_checkout_timeouts_total", 0, **pool)
        histogram(world, "db_pool_checkout_wait_seconds", 5, 0.1, **pool)
        histogram(world, "db_query_duration_seconds", 5, 0.1, **pool, operation="SELECT", query_name="list_items")
        for outcome, rate in (("commit", 5.0), ("rollback", 0.1), ("commit_failed", 0.0)):
            world.add("db_transactions_total", rate, **pool, outcome=outcome)
        world.add("db_query_errors_total", 0, **pool, operation="SELECT", sqlstate_class="08")
        model = {**own, "provider": "openai", "model": "large"}
        for outcome, rate in (("success", 0.25), ("error", 0.0), ("incomplete", 0.0), ("cancelled", 0.01)):
            world.add("llm_requests_total", rate, **model, operation="chat", outcome=outcome)
        histogram(world, "llm_request_duration_seconds", 0.25, 5.0, **model, operation="chat", outcome="success")
        histogram(world, "llm_time_to_first_token_seconds", 0.25, 1.0, **model)
        world.add("llm_requests_in_progress", 1, **model)
        world.add("llm_errors_total", 0, **model, error_type="rate_limit")
        world.add("llm_retries_total", 0, **model, reason="rate_limit")
        world.add("llm_usage_missing_total", 0, **model, reason="not_returned")
        world.add("llm_tokens_total", 60, **model, type="output")
        world.add("llm_cost_usd_total", 0.0002, **model)
    _database(world)
    _hosts(world)
    _monitoring(world)
    return world


def _database(world: World) -> None:
    own = {"job": "postgres", "service": "sightline", "instance": "pg:9187"}
    world.add("up", 1, **own)
    world.add("pg_up", 1, **own)
    world.add("pg_exporter_last_scrape_error", 0, **own)
    world.add("pg_settings_max_connections", 100, **own, server="db:5432")
    for state, count in (("active", 3), ("idle", 20)):
        world.add("pg_stat_activity_count", count, **own, datname="sightline", state=state, usename="sightline")
        for application in ("", "pg_dump"):
            labels = {"datname": "sightline", "state": state, "usename": "sightline", "application_name": application}
            world.add("pg_stat_activity_max_tx_duration", 0, **own, **labels, backend_type="client backend")
    for name, rate in (
        ("xact_commit", 10),
        ("xact_rollback", 0.1),
        ("blks_hit", 20_000),
        ("blks_read", 10),
        ("deadlocks", 0),
    ):
        world.add(f"pg_stat_database_{name}", rate, **own, datname="sightline")
    world.add("pg_stat_database_numbackends", 23, **own, datname="sightline")
    for collector in ("database", "stat_database", "replication"):
        world.add("pg_scrape_collector_success", 1, **own, collector=collector)
    world.add("pg_scrape_collector_success", 0, **own, collector="stat_statements")
    replica = {"job": "postgres", "service": "sightline", "instance": "replica:9187"}
    world.add("up", 1, **replica)
    world.add("pg_up", 1, **replica)
    world.add("pg_replication_lag_seconds", 0.1, **replica)
    world.add("pg_replication_is_replica", 1, **replica)


def _hosts(world: World) -> None:
    for instance in ("n1:9100", "n2:9100"):
        own = {"job": "node", "instance": instance}
        world.add("up", 1, **own)
        world.add("node_uname_info", 1, **own, nodename=instance.partition(":")[0])
        for cpu in ("0", "1"):
            for mode, rate in (("idle", 0.8), ("user", 0.15), ("system", 0.03), ("iowait", 0.02)):
                world.add("node_cpu_seconds_total", rate, **own, cpu=cpu, mode=mode)
        world.add("node_load1", 0.5, **own)
        world.add("node_load5", 0.5, **own)
        world.add("node_memory_MemTotal_bytes", 8e9, **own)
        world.add("node_memory_MemAvailable_bytes", 5e9, **own)
        world.add("node_vmstat_oom_kill", 0, **own)
        world.add("node_vmstat_pgmajfault", 1, **own)
        for kind in ("memory", "io"):
            world.add(f"node_pressure_{kind}_stalled_seconds_total", 0.001, **own)
            world.add(f"node_pressure_{kind}_waiting_seconds_total", 0.001, **own)
        for mountpoint, fstype in (("/", "ext4"), ("/data", "ext4")):
            disk = {**own, "device": "/dev/sda1", "fstype": fstype, "mountpoint": mountpoint}
            world.add("node_filesystem_size_bytes", 100e9, **disk)
            world.add("node_filesystem_avail_bytes", 60e9, **disk)
            world.add("node_filesystem_free_bytes", 62e9, **disk)
            world.add("node_filesystem_files", 1e6, **disk)
            world.add("node_filesystem_files_free", 9e5, **disk)
            world.add("node_filesystem_readonly", 0, **disk)
            world.add("node_filesystem_device_error", 0, **disk)
        disk = {**own, "device": "sda"}
        for name, rate in (
            ("io_time", 0.1),
            ("io_time_weighted", 0.2),
            ("read_time", 0.05),
            ("write_time", 0.1),
        ):
            world.add(f"node_disk_{name}_seconds_total", rate, **disk)
        world.add("node_disk_reads_completed_total", 20, **disk)
        world.add("node_disk_writes_completed_total", 30, **disk)
        link = {**own, "device": "eth0"}
        for name, rate in (
            ("receive_packets", 1000),
            ("transmit_packets", 1000),
            ("receive_errs", 0),
            ("transmit_errs", 0),
            ("receive_bytes", 1e6),
            ("transmit_bytes", 1e6),
            ("receive_drop", 0),
            ("transmit_drop", 0),
        ):
            world.add(f"node_network_{name}_total", rate, **link)
        world.add("node_network_up", 1, **link)
        world.add("node_timex_offset_seconds", 0.001, **own)
        world.add("node_timex_sync_status", 1, **own)
        world.add("node_timex_maxerror_seconds", 0.01, **own)
        world.add("node_scrape_collector_success", 1, **own, collector="cpu")


def _monitoring(world: World) -> None:
    own = {"job": "prometheus", "instance": "p:9090"}
    world.add("up", 1, **own)
    world.add("process_start_time_seconds", 1000, **own)
    for name, value in (
        ("prometheus_config_last_reload_successful", 1),
        ("prometheus_config_last_reload_success_timestamp_seconds", 0),
        ("prometheus_notifications_alertmanagers_discovered", 1),
        ("prometheus_notifications_queue_length", 0),
        ("prometheus_notifications_queue_capacity", 10000),
        ("prometheus_tsdb_head_series", 5000),
    ):
        world.add(name, value, **own)
    for name, rate in (
        ("prometheus_notifications_dropped_total", 0),
        ("prometheus_tsdb_compactions_failed_total", 0),
        ("prometheus_tsdb_wal_corruptions_total", 0),
        ("prometheus_tsdb_wal_writes_failed_total", 0),
        ("prometheus_tsdb_reloads_failures_total", 0),
        ("prometheus_tsdb_head_samples_appended_total", 300),
        ("prometheus_target_scrapes_exceeded_sample_limit_total", 0),
        ("prometheus_target_scrapes_exceeded_body_size_limit_total", 0),
        ("prometheus_target_scrape_pool_exceeded_label_limits_total", 0),
    ):
        world.add(name, rate, **own)
    world.add("prometheus_rule_evaluation_failures_total", 0, **own, rule_group="http")
    world.add("prometheus_rule_group_iterations_missed_total", 0, **own, rule_group="http")
    world.add("prometheus_notifications_sent_total", 0.01, **own, alertmanager="http://a:9093")
    world.add("prometheus_notifications_errors_total", 0, **own, alertmanager="http://a:9093")
    other = {"job": "alertmanager", "instance": "a:9093"}
    world.add("up", 1, **other)
    world.add("process_start_time_seconds", 1000, **other)
    world.add("alertmanager_config_last_reload_successful", 1, **other)
    world.add("alertmanager_notifications_total", 0.01, **other, integration="slack")
    labels = {"integration": "slack", "reason": "other", "receiver_name": "slack"}
    world.add("alertmanager_notifications_failed_total", 0, **other, **labels)
