"""What Locust loads: people, shape, exact record, metrics, progress and verdict. Settings: settings.py."""

import logging
import sys
import time
from typing import Any

import gevent
from locust import LoadTestShape, events, runners
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from prometheus_client import CollectorRegistry, start_http_server

from loadtest import shapes
from loadtest.people import configure, in_hand, moments
from loadtest.record import Record
from loadtest.run import Run, Step
from loadtest.settings import SettingError, Settings
from loadtest.verdict import load_thresholds, threshold_of

try:
    settings = Settings.from_environment()
    thresholds = load_thresholds()
except (SettingError, ValueError) as error:
    sys.exit(f"loadtest: {error}")

Visitor = configure(settings)
record = Record()
run = Run(settings, thresholds, record)
waiting_of: dict[str, int] = {}  # worker process -> how many of its people wait beyond their threshold
PROGRESS_SECONDS = 5.0
LOOK_SECONDS = 0.5
runners.WORKER_REPORT_INTERVAL = LOOK_SECONDS  # as the steps of a short run may be shorter than Locust's 3 seconds


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


@moments.add_listener
def _moment(kind: str, name: str, seconds: float) -> None:
    record.count(kind, name, seconds, None)


@events.report_to_master.add_listener
def _send(client_id: str, data: dict[str, Any]) -> None:
    data["record"] = record.drain()
    data["waiting"] = _waiting()


@events.worker_report.add_listener
def _receive(client_id: str, data: dict[str, Any]) -> None:
    record.merge(data.get("record", ()))
    waiting_of[client_id] = data.get("waiting", 0)


def _waiting() -> int:
    """How many of this process' people wait longer for their answer than its threshold allows."""
    now = time.monotonic()
    return sum(now - since > threshold_of(name, thresholds).p95 for name, since in in_hand.values())


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
    run.start()


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    record.running = False
    _tell(run.stop())


def _watch(environment: Environment) -> None:
    """Keep the gauges, look at the run, and print its progress."""
    printed = 0.0
    while True:
        runner = environment.runner
        record.users = runner.user_count if runner else 0
        waiting = _waiting()
        if isinstance(runner, MasterRunner):
            there = runner.clients.ready + runner.clients.spawning + runner.clients.running
            record.workers = len(there)
            waiting = sum(waiting_of.get(worker.id, 0) for worker in there)
        if record.running:
            _tell(run.look(waiting))
            printed = min(printed, run.elapsed)  # a new run
            if run.elapsed - printed >= PROGRESS_SECONDS:
                print(_progress(waiting), flush=True)
                printed = run.elapsed
        gevent.sleep(LOOK_SECONDS)


def _tell(step: Step | None) -> None:
    if step is not None:
        print(
            f"  {step.users} users, {step.rate:.1f} requests/s: {'; '.join(step.missed) or 'every threshold kept'}",
            flush=True,
        )


def _progress(waiting: int) -> str:
    total = sum(series.requests for series in record.requests().values())
    failed = sum(series.failed for series in record.requests().values())
    worst = max((series.quantile(0.95) for series in run.window().values()), default=0.0)
    left = max(0, round(settings.duration - run.elapsed))
    return (
        f"  {run.elapsed:4.0f} s  {record.users:4d} users  {total:7d} requests  {failed:5d} failed  "
        f"slowest p95 <= {worst:g} s  {left} s left{f'  {waiting} wait too long' if waiting else ''}"
    )


@events.quitting.add_listener
def _finish(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    record.running = False
    record.users = 0
    if environment.web_ui and environment.runner and environment.runner.state == runners.STATE_INIT:
        return  # somebody looked at the page, no more
    text, passed = run.report()
    print(f"\n{text}", flush=True)
    environment.process_exit_code = 0 if passed else 1
    _let_prometheus_collect()


def _let_prometheus_collect() -> None:
    """Where a Prometheus scraped this run, stay until it has seen the final numbers (or `linger` is over)."""
    seen = record.scrapes
    if not seen:
        print("No Prometheus has looked at this run: the dashboard Load test does not show it.", flush=True)
        return
    print("Waiting for Prometheus to collect the final numbers.", flush=True)
    deadline = time.monotonic() + settings.linger
    while record.scrapes == seen and time.monotonic() < deadline:
        gevent.sleep(0.2)
    gevent.sleep(0.2)  # the answer to that scrape is under way
