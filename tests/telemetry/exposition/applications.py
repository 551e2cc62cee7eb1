"""Random metrics of prometheus_client in two workers, each with definitions of its own; writes what each would answer.

    python -m tests.telemetry.exposition.applications FOLDER FIRST_SEED COUNT

For every seed FOLDER gets `SEED-WORKER-FORMAT` files, one for each worker and format.
"""

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

NAMES = (
    "a",
    "a_total",
    "a_count",
    "a_sum",
    "a_bucket",
    "b",
    "b_seconds",
    "c:d",
    "my.dotted",
    "my_dotted",
    "telemetry",
    "9a",
    "_a",
)
LABELS = ("worker", "telemetry_worker", "x", "method", "my-label", "my_label", "endpoint", "", "le\n", "1a", "_a")
VALUES = (
    "",
    "plain",
    'quo"te',
    "back\\slash",
    "new\nline",
    "\r",
    "%s%%d",
    "\u00e9\U0001f600",
    "\ud800",
    "\x00",
    "}",
    "#",
)
NUMBERS = (0.0, 1.0, -1.5, 0.1, 1e300, 1e-9, float("inf"), float("-inf"), float("nan"), 2.0**53)
FORMATS = {"text": "", "openmetrics": "application/openmetrics-text; version=1.0.0"}


def define(dice: random.Random) -> None:
    """Some metrics, whatever prometheus_client allows."""
    import prometheus_client as p

    for _ in range(dice.randint(1, 6)):
        labels = dice.sample(LABELS, dice.randint(0, 3))
        options: dict[str, Any] = {}
        kind = dice.choice((p.Counter, p.Gauge, p.Summary, p.Histogram, p.Info, p.Enum))
        if kind is p.Gauge:
            options["multiprocess_mode"] = dice.choice(("all", "liveall", "min", "livemax", "sum", "mostrecent"))
        if kind is p.Histogram:
            options["buckets"] = dice.choice(((1, 2), (0.1, 1e-5 + 1, 1e6), (-1, 1), (1, float("inf"))))
        if kind is p.Enum:
            options["states"] = ["on", "off"]
        try:
            metric = kind(dice.choice(NAMES), dice.choice(VALUES), labels, **options)
        except ValueError:  # a name that is taken
            continue
        for _ in range(dice.randint(0, 4)):
            child = metric.labels(*(dice.choice(VALUES) for _ in labels)) if labels else metric
            use(child, dice)

    for _ in range(dice.randint(0, 2)):
        p.REGISTRY.register(Custom(dice))


class Custom:
    """A collector of the application, which does not say before what it will give."""

    def __init__(self, dice: random.Random) -> None:
        self.metrics: list[Metric] = []
        for _ in range(dice.randint(1, 4)):
            name = dice.choice((*NAMES, "http_requests", "http_requests_in_progress", "process_open_fds"))
            labels = dice.sample(LABELS, dice.randint(0, 2))
            kind: Any = dice.choice((CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily))
            metric = kind(name, dice.choice(VALUES), labels=labels)
            for _ in range(dice.randint(0, 3)):
                value = {"version": "1"} if kind is InfoMetricFamily else dice.choice(NUMBERS)
                metric.add_metric([dice.choice(VALUES) for _ in labels], value)
            self.metrics.append(metric)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Sequence[Metric]:
        return self.metrics


def use(child: object, dice: random.Random) -> None:
    import prometheus_client as p

    number = dice.choice(NUMBERS)
    if isinstance(child, p.Counter):
        child.inc(abs(number) if number == number else 1)
    elif isinstance(child, p.Gauge):
        if dice.random() < 0.2:
            child.set_function(lambda: number)
        else:
            child.set(number)
    elif isinstance(child, p.Summary | p.Histogram):
        child.observe(number)
    elif isinstance(child, p.Info):
        child.info({"version": dice.choice(VALUES)})
    elif isinstance(child, p.Enum):
        child.state("on")


def work(folder: Path, seed: int) -> None:
    """A service of two workers, which define what they like before and after each other."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / f"metrics-{seed}")
    from app.telemetry import exposition
    from app.telemetry.http import PrometheusMiddleware

    async def nothing(scope: object, receive: object, send: object) -> None: ...

    dice = random.Random(seed)
    if dice.random() < 0.5:
        define(dice)  # before the fork, so in both
    for options in ({"const_labels": {"worker": "w", "x": "1"}}, {"const_labels": {"x": "1", "worker": "w"}}, {}, {}):
        PrometheusMiddleware(nothing, **options)  # type: ignore[arg-type]
    for worker in range(2):
        child = os.fork()
        if not child:
            define(random.Random(seed * 2 + worker))
            for name, accept in FORMATS.items():
                (folder / f"{seed}-{worker}-{name}").write_bytes(exposition.render(accept=accept))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    for name, accept in FORMATS.items():  # one that knows what both have defined
        (folder / f"{seed}-parent-{name}").write_bytes(exposition.render(accept=accept))


def main() -> None:
    import fastapi.routing  # noqa: F401 - once, and not in every fork; the telemetry looks for its folder when imported

    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, first + count):
        child = os.fork()
        if not child:
            work(folder, seed)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, f"seed {seed}"


if __name__ == "__main__":
    main()
