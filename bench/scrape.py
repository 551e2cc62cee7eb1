"""Times to render and memory of one histogram: `python -m bench.scrape ENGINE COMBINATIONS WORKERS TIMES` prints JSON.

It is rendered so many TIMES, or until that has taken five seconds. With WORKERS above 0, PROMETHEUS_MULTIPROC_DIR must
name an empty folder. One worker's file is written and copied: the others are what dead workers left behind, which count
like living ones.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.peers import BUCKETS

NAMES = ("method", "endpoint")
VALUE = 0.2  # seconds, observed once for each combination


def series(combinations: int) -> list[tuple[str, str]]:
    return [("GET", f"/some/route{number}/{{item_id}}") for number in range(combinations)]


def sightline() -> tuple[Callable[[int], None], Callable[[], bytes]]:
    from app.telemetry.exposition import SharedMetric, render
    from app.telemetry.storage import storage

    def fill(combinations: int) -> None:
        family = SharedMetric("histogram", "bench_seconds", "Bench.").family(NAMES, BUCKETS)
        for labelvalues in series(combinations):
            start = storage.own(family, labelvalues, alone=False)
            if start is None:
                raise RuntimeError("no room")
            storage.cells[start + 1] += VALUE
            storage.cells[start + 2 + 6] += 1.0

    return fill, render


def prometheus() -> tuple[Callable[[int], None], Callable[[], bytes]]:
    import prometheus_client
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, multiprocess

    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]

    def fill(combinations: int) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        histogram = prometheus_client.Histogram("bench_seconds", "Bench.", NAMES, buckets=BUCKETS)
        for labelvalues in series(combinations):
            histogram.labels(*labelvalues).observe(VALUE)

    return fill, lambda: generate_latest(registry)


def aioprometheus() -> tuple[Callable[[int], None], Callable[[], bytes]]:
    from aioprometheus import REGISTRY, Histogram
    from aioprometheus.renderer import render

    def fill(combinations: int) -> None:
        histogram = Histogram("bench_seconds", "Bench.", buckets=[*BUCKETS, float("inf")])
        for labelvalues in series(combinations):
            histogram.observe(dict(zip(NAMES, labelvalues, strict=True)), VALUE)

    return fill, lambda: bytes(render(REGISTRY, [])[0])


def opentelemetry() -> tuple[Callable[[int], None], Callable[[], bytes]]:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import generate_latest

    meter = MeterProvider([PrometheusMetricReader()]).get_meter("bench")

    def fill(combinations: int) -> None:
        histogram = meter.create_histogram("bench", unit="s", explicit_bucket_boundaries_advisory=BUCKETS)
        for labelvalues in series(combinations):
            histogram.record(VALUE, dict(zip(NAMES, labelvalues, strict=True)))

    return fill, generate_latest


ENGINES = {
    "Sightline": sightline,
    "prometheus_client": prometheus,
    "aioprometheus": aioprometheus,
    "OpenTelemetry": opentelemetry,
}


def fill(engine: str, combinations: int) -> None:
    """A histogram with that many combinations of label values, each observed once."""
    ENGINES[engine]()[0](combinations)


def copy_files(engine: str, workers: int) -> None:
    """What so many workers have written."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    source = folder / "worker-0" if engine == "Sightline" else next(folder.glob("histogram_*.db"))
    for number in range(1, workers):
        target = folder / (f"worker-{number}" if engine == "Sightline" else f"histogram_{10**8 + number}.db")
        subprocess.run(["cp", "--sparse=always", source, target], check=True)


def used() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    text = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss:")) * 1024


def main() -> None:
    engine, combinations, workers, times = sys.argv[1], *map(int, sys.argv[2:])
    fill, render = ENGINES[engine]()
    before = used()
    fill(combinations)
    memory = used() - before
    if workers:
        copy_files(engine, workers)
    seconds: list[float] = []
    while len(seconds) < times and sum(seconds) < 5:
        began = time.perf_counter()
        text = render()
        seconds.append(time.perf_counter() - began)
    found = [line for line in text.splitlines() if line.startswith(b"bench_seconds")]
    total = sum(float(line.split()[-1]) for line in found if line.startswith(b"bench_seconds_count"))
    if total != combinations * max(workers, 1):
        raise RuntimeError(f"{total} observations of {combinations} by {workers} workers")
    print(json.dumps({"seconds": seconds, "lines": len(found), "memory": memory}))


if __name__ == "__main__":
    main()
