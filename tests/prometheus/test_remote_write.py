"""Remote write to a real VictoriaMetrics: what arrives over outages and restarts, and which alerts fire."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import remote_write, settings
from tests.prometheus.rules import alerts, wanted_metrics
from tests.running import folder, free_port, wait_until
from tests.servers import Prometheus, PrometheusApi, VictoriaMetrics, prometheus_of_the_stack, victoriametrics

Samples = dict[tuple[tuple[str, str], ...], list[tuple[float, str]]]
OUTAGE = 20.0  # seconds of scrapes, which come every second


@pytest.fixture
def place() -> Iterator[Path]:
    with folder("remote-write") as path:
        yield path


@pytest.fixture
def port() -> int:
    """Of the store, which comes back at the same one."""
    return free_port()


def section(url: str) -> str:
    """As `make up` writes it for the stack's own store at this address."""
    return remote_write.section(settings.load({"LONGTERM_RETENTION": "1y"}, Path("no .env")), url)


def store(place: Path, port: int) -> str:
    return section(f"http://127.0.0.1:{port}")


def samples(server: PrometheusApi, start: float, end: float) -> Samples:
    """All samples after `start` until `end`: series -> (time, value), but for markers of series that ended."""
    selector = f'{{__name__!="", __name__!~"scrape_.*"}}[{1000 * (end - start):.0f}ms]'
    found = server.api("query", query=selector, time=f"{end:.3f}")["result"]
    kept = {tuple(sorted(one["metric"].items())): [(t, v) for t, v in one["values"] if v != "NaN"] for one in found}
    return {series: values for series, values in kept.items() if values}


def missing(server: Prometheus, store: VictoriaMetrics, start: float, end: float) -> list[str]:
    """What the store lacks, or has otherwise, of the samples from `start` to `end`."""
    store.visible()
    here, there = samples(server, start, end), samples(store, start, end)
    assert len(here) > 500
    assert sum(map(len, here.values())) > 500 * (end - start) / 2
    return [f"{series}: {here[series][:3]}" for series in here if not _same(here[series], there.get(series, []))]


def _same(here: list[tuple[float, str]], there: list[tuple[float, str]]) -> bool:
    times = [at for at, _ in here] == [at for at, _ in there]
    return times and all(
        math.isclose(float(one), float(other)) for (_, one), (_, other) in zip(here, there, strict=True)
    )


def newest(server: Prometheus) -> float:
    """The time until which everything has been sent."""
    return own(server, "prometheus_remote_storage_queue_highest_sent_timestamp_seconds")


def own(server: Prometheus, metric: str) -> float:
    """Its metric of itself; one that was here before it had another port."""
    return server.value(f'{metric}{{job="prometheus", instance="{server.server.address}"}}')


def behind(server: Prometheus) -> float:
    return own(server, "prometheus_remote_storage_highest_timestamp_in_seconds") - newest(server)


def sent(server: Prometheus, until: float) -> bool:
    return newest(server) > until


def test_everything_arrives_over_an_outage_and_a_restart_of_the_store(place: Path, port: int) -> None:
    with prometheus_of_the_stack(also=store(place, port)) as server:
        with victoriametrics(place / "store", port):
            wait_until(lambda: newest(server) > 0)
            start = newest(server)
            wait_until(lambda: sent(server, start + 5))
        wait_until(lambda: behind(server) > OUTAGE)
        with victoriametrics(place / "store", port) as back:
            end = own(server, "prometheus_remote_storage_highest_timestamp_in_seconds")
            wait_until(lambda: sent(server, end + 3))
            assert end - start > OUTAGE
            assert missing(server, back, start, end) == []


def test_only_what_waits_is_lost_when_prometheus_restarts(place: Path, port: int) -> None:
    """Prometheus sends what it scrapes since its start, not what its log has of the time before."""
    also = store(place, port)
    with victoriametrics(place / "store", port) as running:
        with prometheus_of_the_stack(also=also, data=place / "data") as server:
            wait_until(lambda: newest(server) > 0)
            start = newest(server)
            wait_until(lambda: sent(server, start + 5))
        with prometheus_of_the_stack(also=also, data=place / "data") as server:
            wait_until(lambda: newest(server) > 0)
            arrived = newest(server)
            assert missing(server, running, start, arrived) == [], "what it had when it ended has arrived"
            running.stop()
            outage = time.time()
            scraped = "prometheus_remote_storage_highest_timestamp_in_seconds"
            wait_until(lambda: own(server, scraped) > outage + OUTAGE)
    with (
        prometheus_of_the_stack(also=also, data=place / "data") as server,
        victoriametrics(place / "store", port) as running,
    ):
        wait_until(lambda: sent(server, 0))
        again = own(server, "process_start_time_seconds")
        start = wait_until(lambda: own(server, "prometheus_remote_storage_highest_timestamp_in_seconds"))
        wait_until(lambda: sent(server, start + 8))
        end = start + 5
        running.visible()
        assert samples(server, outage + 5, again - 5), "of the outage"
        assert samples(running, outage + 5, again - 5) == {}
        assert missing(server, running, start, end) == []


def test_alerts_fire_for_outages_and_rejected_samples_and_not_without_a_store(place: Path, port: int) -> None:
    rules = {rule.name: rule.expr for rule in alerts() if rule.name.startswith("PrometheusRemoteWrite")}
    late = rules["PrometheusRemoteWriteBehind"].replace("> 600", "> 5")
    failing = rules["PrometheusRemoteWriteFailing"]
    assert "> 5" in late
    with prometheus_of_the_stack() as off:
        wait_until(lambda: off.query("prometheus_remote_storage_highest_timestamp_in_seconds > 0"))
        assert off.query(late) == off.query(failing) == {}
    with prometheus_of_the_stack(also=store(place, port)) as server:
        wait_until(lambda: server.query(late))  # nothing has been sent yet: since its start
        assert server.value(late) < 120
        with victoriametrics(place / "store", port):
            wait_until(lambda: sent(server, 0) and not server.query(late))
            assert server.query(failing) == {}
            wanted = {name for name in wanted_metrics() if name.startswith("prometheus_remote_storage_")}
            known = {*server.api("label/__name__/values"), *server.api("metadata")}
            # The counter of what was dropped is there from the first sample on that was.
            assert wanted - known == {"prometheus_remote_storage_samples_dropped_total"}
        wait_until(lambda: server.query(late))
    with victoriametrics(place / "store", port) as running:
        wrong = section(running.url).replace("/api/v1/write", "/api/v1/receive")
        with prometheus_of_the_stack(also=wrong) as server:
            wait_until(lambda: server.query(failing))
