"""Time to render and memory of one histogram: `python -m bench.scrape ENGINE COMBINATIONS WORKERS` prints JSON.

With WORKERS above 0, PROMETHEUS_MULTIPROC_DIR must name an empty folder. One worker's file is written and copied: the
others are what dead workers left behind, which count like living ones.
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


def fill(engine: str, combinations: int) -> None:
    """A histogram with that many combinations of label values, each observed once."""
    names = ("method", "endpoint")
    values = [("GET", f"/some/route{number}/{{item_id}}") for number in range(combinations)]
    if engine == "Sightline":
        from app.telemetry.exposition import SharedMetric
        from app.telemetry.storage import storage

        family = SharedMetric("histogram", "bench_seconds", "Bench.").family(names, BUCKETS)
        for labelvalues in values:
            start = storage.own(family, labelvalues, alone=False)
            if start is None:
                raise RuntimeError("no room")
            storage.cells[start + 1] += 0.2
            storage.cells[start + 2 + 6] += 1.0
    else:
        import prometheus_client

        prometheus_client.disable_created_metrics()
        histogram = prometheus_client.Histogram("bench_seconds", "Bench.", names, buckets=BUCKETS)
        for labelvalues in values:
            histogram.labels(*labelvalues).observe(0.2)


def renderer(engine: str, workers: int) -> Callable[[], bytes]:
    if engine == "Sightline":
        from app.telemetry import exposition

        return exposition.render
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, multiprocess

    registry = REGISTRY
    if workers:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return lambda: generate_latest(registry)


def copy_files(engine: str, workers: int) -> None:
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
    engine, combinations, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    render = renderer(engine, workers)
    before = used()
    fill(engine, combinations)
    memory = used() - before
    if workers:
        copy_files(engine, workers)
    seconds = []
    for _ in range(3 if combinations <= 1000 else 2):
        began = time.perf_counter()
        text = render()
        seconds.append(time.perf_counter() - began)
    lines = sum(line.startswith(b"bench_seconds") for line in text.splitlines())
    total = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(b"bench_seconds_count"))
    if total != combinations * max(workers, 1):
        raise RuntimeError(f"{total} observations of {combinations} by {workers} workers")
    print(json.dumps({"seconds": min(seconds), "lines": lines, "memory": memory}))


if __name__ == "__main__":
    main()
