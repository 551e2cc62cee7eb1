"""Drills for a separate stack only: they break configuration, database, monitoring, or (breakages_host.py) the machine.

And those whose alerts need hours with the real windows, of traffic before (outage) or of patience (llm-stuck).
"""

from __future__ import annotations

import threading
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import psutil
import psycopg
import yaml

from ops.drills.catalogue import fault
from tests.ops.drills import breakages_host
from tests.ops.drills.lab import Lab
from tests.running import meanwhile

Breakage = Callable[[Lab], AbstractContextManager[None]]


@contextmanager
def config_broken(lab: Lab) -> Iterator[None]:
    """Half a configuration is saved."""
    with lab.changed(lab.prometheus_folder / "prometheus.yml", "global: [", "prometheus"):
        yield


@contextmanager
def alertmanager_config_broken(lab: Lab) -> Iterator[None]:
    """Half a configuration of Alertmanager is saved."""
    with lab.changed(lab.alertmanager_folder / "alertmanager.yml", "route: {}", "alertmanager"):
        yield


@contextmanager
def receiver_down(lab: Lab) -> Iterator[None]:
    """The receiver of the notifications refuses them."""
    lab.receiver.refuse = True
    try:
        yield
    finally:
        lab.receiver.refuse = False


@contextmanager
def rule_broken(lab: Lab) -> Iterator[None]:
    """A rule that is valid and can't be evaluated: many series on both sides."""
    rule = {"record": "broken", "expr": "up * on () up"}
    group = {"groups": [{"name": "broken", "interval": "1s", "rules": [rule]}]}
    with lab.changed(lab.prometheus_folder / "rules" / "broken.yml", yaml.safe_dump(group), "prometheus"):
        yield


@contextmanager
def rules_heavy(lab: Lab) -> Iterator[None]:
    """Rules that take longer than their interval."""
    rule = {"record": "heavy", "expr": 'count(last_over_time({__name__=~".+"}[2m]))'}
    group = {"groups": [{"name": "heavy", "interval": "5ms", "rules": [rule]}]}
    with lab.changed(lab.prometheus_folder / "rules" / "heavy.yml", yaml.safe_dump(group), "prometheus"):
        yield


@contextmanager
def alertmanager_lost(lab: Lab) -> Iterator[None]:
    """The target file has no Alertmanager any more."""
    with lab.changed(lab.prometheus_folder / "targets" / "alertmanager.yml", "[]", "prometheus"):
        yield


@contextmanager
def scrape_config_lost(lab: Lab) -> Iterator[None]:
    """A configuration without anything to scrape."""
    file = lab.prometheus_folder / "prometheus.yml"
    document = yaml.safe_load(file.read_text())
    document["scrape_configs"] = []
    with lab.changed(file, yaml.safe_dump(document), "prometheus"):
        yield


@contextmanager
def scrape_limit(lab: Lab) -> Iterator[None]:
    """The service returns more series than the limit allows."""
    file = lab.prometheus_folder / "prometheus.yml"
    document = yaml.safe_load(file.read_text())
    job = next(job for job in document["scrape_configs"] if job["job_name"] == "app")
    job["sample_limit"] = 10
    with lab.changed(file, yaml.safe_dump(document), "prometheus"):
        yield


@contextmanager
def metrics_lost(lab: Lab) -> Iterator[None]:
    """A relabelling drops the service's metrics of requests."""
    file = lab.prometheus_folder / "prometheus.yml"
    document = yaml.safe_load(file.read_text())
    job = next(job for job in document["scrape_configs"] if job["job_name"] == "app")
    job["metric_relabel_configs"] = [{"source_labels": ["__name__"], "regex": "http_requests_total", "action": "drop"}]
    with lab.changed(file, yaml.safe_dump(document), "prometheus"):
        yield


@contextmanager
def exporter_rights(lab: Lab) -> Iterator[None]:
    """The exporter loses one of its rights (without pg_monitor itself the whole scrape would fail)."""
    with lab.superuser() as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_ls_waldir() FROM pg_monitor")
        try:
            yield
        finally:
            connection.execute("GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO pg_monitor")


@contextmanager
def connections(lab: Lab) -> Iterator[None]:
    """Something opens connections to PostgreSQL and keeps them."""
    with ExitStack() as stack:
        first = stack.enter_context(lab.superuser())

        def share() -> float:
            row = first.execute(
                "SELECT count(*) / current_setting('max_connections')::float FROM pg_stat_activity"
                " WHERE backend_type = 'client backend'"
            ).fetchone()
            assert row is not None
            return float(row[0])

        def hold(over: threading.Event) -> None:
            while not over.wait(0.2):
                while share() < 0.98:
                    with suppress(psycopg.OperationalError):
                        stack.enter_context(lab.superuser())

        with meanwhile(hold):
            yield


@contextmanager
def cold_cache(lab: Lab) -> Iterator[None]:
    """Queries read tables that are larger than the cache, again and again."""

    def read(over: threading.Event) -> None:
        with lab.superuser() as connection:
            while not over.is_set():
                connection.execute("SELECT count(*) FROM filler")

    with lab.superuser() as connection:
        connection.execute(
            "CREATE UNLOGGED TABLE filler AS SELECT i, repeat('x', 400) AS text FROM generate_series(1, 700000) AS i"
        )
        try:
            with meanwhile(read):
                yield
        finally:
            connection.execute("DROP TABLE filler")


@contextmanager
def commits_failing(lab: Lab) -> Iterator[None]:
    """A constraint that is checked at COMMIT refuses every new item."""
    with lab.superuser() as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'a drill refuses this commit' USING ERRCODE = '23514'; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION refuse CASCADE")


@contextmanager
def target_vanished(lab: Lab) -> Iterator[None]:
    """Somebody empties a target file: the host's exporter runs, but is no longer scraped."""
    with lab.changed(lab.prometheus_folder / "targets" / "node.yml", "[]", None):
        yield


@contextmanager
def flapping(lab: Lab) -> Iterator[None]:
    """An exporter is killed every few seconds, and restarted at once."""

    def kill(over: threading.Event) -> None:
        while not over.wait(3):
            with suppress(psutil.NoSuchProcess, IndexError):
                lab.main_process("node-exporter").kill()

    with meanwhile(kill):
        yield


@contextmanager
def pile_up(lab: Lab) -> Iterator[None]:
    """Requests come faster than a slow endpoint answers them."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            with suppress(OSError, urllib.error.URLError):
                lab.post("/items", {})

    with ThreadPoolExecutor(80) as pool:
        lab.stack.fault("slow", seconds=600, delay=10, path_prefix="/items")
        try:
            for _ in range(80):
                pool.submit(ask)
            yield
        finally:
            done.set()
            lab.stack.repair()


@contextmanager
def outage(lab: Lab) -> Iterator[None]:
    """Every request is refused before it reaches the database."""
    with fault("errors", share=1.0)(lab.stack):
        yield


@contextmanager
def llm_stuck(lab: Lab) -> Iterator[None]:
    """The model has not answered anybody for minutes."""
    with fault("llm-slow", first_token_seconds=55, tokens_per_second=1000)(lab.stack):
        yield


@contextmanager
def llm_unpriced(lab: Lab) -> Iterator[None]:
    """A client requests a model that the price table does not have."""
    key = lab.post("/users", {"name": "drill"})["api_key"]
    for _ in range(8):
        lab.post("/chat", {"message": "Hello", "model": "brand-new-model", "stream": False}, key)
    yield


BREAKAGES: dict[str, Breakage] = {
    function.__name__.replace("_", "-"): function
    for function in (
        config_broken,
        alertmanager_config_broken,
        receiver_down,
        rule_broken,
        rules_heavy,
        alertmanager_lost,
        scrape_config_lost,
        scrape_limit,
        metrics_lost,
        exporter_rights,
        connections,
        cold_cache,
        commits_failing,
        breakages_host.open_files,
        breakages_host.disk_full,
        breakages_host.inodes_used_up,
        breakages_host.filesystem_read_only,
        target_vanished,
        flapping,
        breakages_host.out_of_memory,
        breakages_host.disk_busy,
        breakages_host.load_high,
        pile_up,
        outage,
        llm_stuck,
        llm_unpriced,
    )
}
