"""What Locust loads: people, shape, exact record, metrics, progress and verdict. Settings: settings.py."""

import logging
import sys
import time
from typing import Any

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from prometheus_client import CollectorRegistry, start_http_server

from loadtest import shapes
from loadtest.people import configure
from loadtest.record import Key, Record, Series
from loadtest.settings import SettingError, Settings
from loadtest.verdict import judge, load_thresholds, table

try:
    settings = Settings.from_environment()
    thresholds = load_thresholds()
except (SettingError, ValueError) as error:
    sys.exit(f"loadtest: {error}")

Visitor = configure(settings)
record = Record()
PROGRESS_SECONDS = 5.0


class Shape(LoadTestShape):
    """The load shape that the settings name."""

    def tick(self) -> tuple[int, float] | None:
        users = shapes.users_at(settings, self.get_run_time())
        return None if users is None else (users, max(1.0, settings.users / 10))


@events.request.add_listener
def _count(
    request_type: str, name: str, response_time: float, exception: BaseException | None = None, **_: Any
) -> None:
    record.count(request_type, name, response_time / 1000, exception)


@events.report_to_master.add_listener
def _send(client_id: str, data: dict[str, Any]) -> None:
    data["record"] = record.drain()


@events.worker_report.add_listener
def _receive(client_id: str, data: dict[str, Any]) -> None:
    record.merge(data.get("record", ()))


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    logging.getLogger("locust.stats_logger").disabled = True  # the verdict's table says it, exactly
    if isinstance(environment.runner, WorkerRunner):
        return
    registry = CollectorRegistry()
    registry.register(record)
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        sys.exit(
            f"loadtest: the metrics port {settings.metrics_host}:{settings.metrics_port} can't be had"
            f" ({error.strerror}); another load test may be running. LOCUST_METRICS_PORT moves it."
        )
    gevent.spawn(_watch, environment)


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    record.running = True


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    record.running = False


def _watch(environment: Environment) -> None:
    """Keep the gauges, print the progress, and remember each step of a step run."""
    began: float | None = None
    before: dict[Key, Series] = {}
    printed = 0.0
    step = 0
    while True:
        runner = environment.runner
        record.users = runner.user_count if runner else 0
        record.workers = len(runner.clients.ready + runner.clients.running) if isinstance(runner, MasterRunner) else 0
        if not record.running:
            began, before, printed, step = None, {}, 0.0, 0
        else:
            now = time.monotonic()
            began = began or now
            elapsed = now - began
            if elapsed - printed >= PROGRESS_SECONDS:
                print(_progress(elapsed, before), flush=True)
                printed = elapsed
            if settings.shape == "step" and (current := shapes.step_at(settings, elapsed)) != step:
                before = _end_step(step, before)
                step = current
        gevent.sleep(0.5)


steps: list[tuple[int, float, bool]] = []  # users, requests per second, kept the thresholds


def _window(before: dict[Key, Series]) -> dict[Key, Series]:
    return {key: series.since(before.get(key)) for key, series in record.requests().items()}


def _end_step(step: int, before: dict[Key, Series]) -> dict[Key, Series]:
    window = _window(before)
    users = -(-settings.users * (step + 1) // shapes.STEPS)
    rate = sum(series.requests for series in window.values()) / (settings.duration / shapes.STEPS)
    kept = not any(finding.missed for finding in judge(window, thresholds))
    steps.append((users, rate, kept))
    print(
        f"  step {step + 1}: {users} users, {rate:.1f} requests/s, thresholds {'kept' if kept else 'missed'}",
        flush=True,
    )
    return record.snapshot()


def _progress(elapsed: float, before: dict[Key, Series]) -> str:
    window = _window(before)
    total = sum(series.requests for series in record.requests().values())
    failed = sum(series.failed for series in record.requests().values())
    worst = max((series.quantile(0.95) for series in window.values()), default=0.0)
    left = max(0, round(settings.duration - elapsed))
    return (
        f"  {elapsed:4.0f} s  {record.users:4d} users  {total:7d} requests  {failed:5d} failed  "
        f"slowest p95 <= {worst:g} s  {left} s left"
    )


@events.quitting.add_listener
def _finish(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    record.running = False
    record.users = 0
    findings = judge(record.requests(), thresholds)
    print(f"\n{settings.shape} with {settings.users} users against {settings.host}\n{table(findings)}")
    if settings.shape == "step":
        kept = [step for index, step in enumerate(steps) if all(ok for _, _, ok in steps[: index + 1])]
        print(
            f"Capacity: {kept[-1][0]} users, {kept[-1][1]:.1f} requests/s were the most that kept every threshold."
            if kept
            else "Capacity: even the first step missed a threshold."
        )
    if not findings or not any(finding.series.requests for finding in findings):
        print("Verdict: FAILED, not one request was made.")
        environment.process_exit_code = 1
    elif any(finding.missed for finding in findings):
        print("Verdict: FAILED, thresholds were missed (loadtest/thresholds.toml).")
        environment.process_exit_code = 1
    else:
        print("Verdict: passed, every threshold was kept.")
        environment.process_exit_code = 0
    _let_prometheus_collect()


def _let_prometheus_collect() -> None:
    """Where a Prometheus scraped this run, stay until it has seen the final numbers (or `linger` is over)."""
    seen = record.scrapes
    if not seen:
        return
    print("Waiting for Prometheus to collect the final numbers.", flush=True)
    deadline = time.monotonic() + settings.linger
    while record.scrapes == seen and time.monotonic() < deadline:
        gevent.sleep(0.2)
    gevent.sleep(0.2)  # the answer to that scrape is under way
