"""What Locust loads: users, shape, exact record, metrics, progress and verdict. Settings: settings.py."""

import logging
import os
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import flask
import gevent
from locust import LoadTestShape, events, runners
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from prometheus_client import CollectorRegistry, start_http_server

from loadtest import shapes
from loadtest.record import Record
from loadtest.run import Run, Step
from loadtest.settings import SettingError, Settings
from loadtest.users import configure, in_flight, stream_events, unfinished
from loadtest.verdict import load_thresholds, threshold_of

try:
    settings = Settings.from_environment()
    thresholds = load_thresholds()
except (SettingError, ValueError) as error:
    sys.exit(f"loadtest: {error}")

User = configure(settings)
record = Record()
run = Run(settings, thresholds, record)
waiting_of: dict[str, int] = {}  # worker process -> how many of its users wait beyond their threshold
unfinished_of: dict[str, int] = {}  # worker process -> how many requests it ended because the run was over
PROGRESS_SECONDS = 5.0
LOOK_SECONDS = 0.5
runners.HEARTBEAT_LIVENESS = 10  # seconds; on a busy machine workers are missed after the default 3, and the run ends
runners.WORKER_REPORT_INTERVAL = LOOK_SECONDS  # steps of a short run may be shorter than Locust's 3 s


class Shape(LoadTestShape):
    """The load shape of the settings."""

    def tick(self) -> tuple[int, float] | None:
        users = shapes.users_at(settings, self.get_run_time())
        if users is None:
            if isinstance(self.runner, MasterRunner):
                self.runner.stop()  # waits for the workers' requests; Locust's own end gives them half a second
            return None
        return users, max(1.0, settings.users / 10)


@events.request.add_listener
def _count(
    request_type: str, name: str, response_time: float, exception: BaseException | None = None, **_: Any
) -> None:
    record.count(request_type, name, response_time / 1000, exception)


@stream_events.add_listener
def _count_stream_event(kind: str, name: str, seconds: float) -> None:
    record.count(kind, name, seconds, None)


@events.report_to_master.add_listener
def _send(client_id: str, data: dict[str, Any]) -> None:
    data["record"] = record.drain()
    data["waiting"] = _waiting()
    data["unfinished"] = len(unfinished)


@events.worker_report.add_listener
def _receive(client_id: str, data: dict[str, Any]) -> None:
    record.merge(data.get("record", ()))
    waiting_of[client_id] = data.get("waiting", 0)
    unfinished_of[client_id] = data.get("unfinished", 0)


def _waiting() -> int:
    """How many users of this process wait longer than the p95 threshold of their request."""
    now = time.monotonic()
    return sum(now - since > threshold_of(name, thresholds).p95 for name, since in in_flight.values())


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    logging.getLogger("locust.stats_logger").disabled = True  # the verdict's table has exact numbers
    if isinstance(environment.runner, WorkerRunner):
        return
    if environment.web_ui and environment.web_ui.app:
        environment.web_ui.app.before_request(_refuse_other_sites)
    registry = CollectorRegistry()
    registry.register(record)
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        sys.exit(
            f"loadtest: cannot listen on the metrics port {settings.metrics_host}:{settings.metrics_port}"
            f" ({error.strerror}); another load test may be running. LOCUST_METRICS_PORT sets another port."
        )
    gevent.spawn(_watch, environment)


def _refuse_other_sites() -> None:
    """Another web page in the user's browser could send the form that starts load, or read what is here: by a name of
    its own that leads to this machine (DNS rebinding).
    """
    here = urlsplit(f"//{flask.request.host}")
    if here.hostname not in ("localhost", "127.0.0.1"):
        flask.abort(403, "The page is available as localhost and 127.0.0.1 only.")
    origin = flask.request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != here.netloc:
        flask.abort(403, "Cross-site requests are not allowed.")


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    unfinished.clear()
    unfinished_of.clear()
    record.running = True
    run.start()


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        environment.stop_timeout = 0  # its users have ended; it would wait that long before it takes another order
        environment.runner._send_stats()  # the master drops what comes after a worker's "stopped"
        return
    record.running = False
    _print_step(run.stop())


def _watch(environment: Environment) -> None:
    """Update the gauges and the run, and print its progress."""
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
            _print_step(run.look(waiting))
            printed = min(printed, run.elapsed)  # a new run
            if run.elapsed - printed >= PROGRESS_SECONDS:
                _say(_progress(waiting))
                printed = run.elapsed
        gevent.sleep(LOOK_SECONDS)


def _say(text: str) -> None:
    """Print; where nobody reads it any more (`| head`) or it can't be written, the run goes on to its verdict."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _print_step(step: Step | None) -> None:
    if step is not None:
        _say(f"  {step.users} users, {step.rate:.1f} requests/s: {'; '.join(step.missed) or 'every threshold met'}")


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
        return  # the web page was opened, and no test started
    exceptions = environment.runner.exceptions.values() if environment.runner else ()
    raised = Counter[str]()
    for one in exceptions:
        raised[f"{one['msg']} {' '.join(one['traceback'].strip().splitlines()[-2:])}"] += one["count"]
    text, passed = run.report(raised, len(unfinished) + sum(unfinished_of.values()))
    _say(f"\n{text}")
    if report := os.environ.get("LOADTEST_REPORT"):
        _say(f"Report: {report}")
    environment.process_exit_code = 0 if passed else 1
    _wait_for_last_scrape()


def _wait_for_last_scrape() -> None:
    """If a Prometheus scraped this run, wait for its scrape of the final numbers, at most `linger` seconds."""
    seen = record.scrapes
    if not seen:
        _say("No Prometheus scraped this run: the Load test dashboard does not show it.")
        return
    _say("Waiting for Prometheus to scrape the final numbers.")
    deadline = time.monotonic() + settings.linger
    while record.scrapes == seen and time.monotonic() < deadline:
        gevent.sleep(0.2)
    gevent.sleep(0.2)  # until the response to that scrape is sent
