"""What instrumented engines take for a query and for a transaction: bench_database runs it, in processes of its own.

    BENCH_DATABASE_URL=postgresql+psycopg://... python -m bench.queries

Prints JSON: the CPU seconds of every round, peer by peer. Peers take turns within a round, in an order by chance, and
all use one and the same connection to the server, so that none of them has a better one.
With PROMETHEUS_MULTIPROC_DIR in the environment all of them count as one of several workers. With BENCH_INSTRUCTIONS it
runs under valgrind, which writes the counts of what lies between two marks, and prints their order instead of seconds.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy
from prometheus_client import Histogram
from sqlalchemy import Engine, create_engine, event, text

from bench.instructions import mark

ROUNDS = 121
QUERIES = 150
TRANSACTIONS = 50
ONE = text("SELECT 1")

# Made before app.telemetry takes over the storage of what comes after it: prometheus_client as it is.
BY_HAND = Histogram("by_hand_query_seconds", "Duration of a query.", ("operation",))


def bare(engine: Engine) -> None:
    pass


def sightline(engine: Engine) -> None:
    from app.telemetry.database import instrument_engine

    instrument_engine(engine, pool="bench")


def by_hand(engine: Engine) -> None:
    """Event listeners and a child that is looked up once: the least that most services have. Queries only."""
    child = BY_HAND.labels("SELECT")

    def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        context.started = time.perf_counter()

    def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        child.observe(time.perf_counter() - context.started)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)


def opentelemetry(engine: Engine) -> None:
    """As cheap as it gets: no span is recorded. It has no metric of queries, of connections alone."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # type: ignore[import-not-found]
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    SQLAlchemyInstrumentor().instrument(
        engine=engine,
        meter_provider=MeterProvider([PrometheusMetricReader()]),
        tracer_provider=NoOpTracerProvider(),
        skip_dep_check=True,  # it refuses SQLAlchemy 2.1, though its listeners work there
    )


PEERS: dict[str, Callable[[Engine], None]] = {
    "bare": bare,
    "bare, once more": bare,  # what differs here is noise
    "Sightline": sightline,
    "listeners by hand": by_hand,
    "OpenTelemetry": opentelemetry,
}


def queries(engine: Engine) -> Callable[[], float]:
    """CPU seconds of a query on a connection that is kept."""
    connection = engine.connect()

    def measure() -> float:
        started = time.process_time()
        for _ in range(QUERIES):
            connection.execute(ONE)
        return (time.process_time() - started) / QUERIES

    return measure


def transactions(engine: Engine) -> Callable[[], float]:
    """CPU seconds of what a request does: take a connection, begin, one query, commit, give it back."""

    def measure() -> float:
        started = time.process_time()
        for _ in range(TRANSACTIONS):
            with engine.begin() as connection:
                connection.execute(ONE)
        return (time.process_time() - started) / TRANSACTIONS

    return measure


def rounds(of: Callable[[Engine], Callable[[], float]], engines: dict[str, Engine]) -> dict[str, list[float]]:
    measures = [(name, of(engine)) for name, engine in engines.items()]
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    gc.collect()
    gc.freeze()
    for number in range(-5, ROUNDS):  # the first five warm up
        for name, measure in random.sample(measures, len(measures)):
            taken = measure()
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def counted(engines: dict[str, Engine]) -> list[tuple[str, str, int]]:
    """What was done between each two marks: what, by which peer, and how often."""
    gc.disable()
    done = []
    for what, of, count in (("query", queries, QUERIES), ("transaction", transactions, TRANSACTIONS)):
        for name, engine in engines.items():
            measure = of(engine)
            measure()  # warms up
            mark()
            measure()
            mark()
            done.append((what, name, count))
    return done


def main() -> int:
    url = os.environ["BENCH_DATABASE_URL"]
    connection = psycopg.connect(url.replace("+psycopg", "", 1))
    engines = {}
    for name, instrument in PEERS.items():
        if name == "OpenTelemetry" and not (
            importlib.util.find_spec("opentelemetry")
            and importlib.util.find_spec("opentelemetry.instrumentation.sqlalchemy")
        ):
            continue
        engines[name] = create_engine(url, creator=lambda: connection)
        instrument(engines[name])
    if os.environ.get("BENCH_INSTRUCTIONS"):
        json.dump(counted(engines), sys.stdout)
        return 0
    of = {"query": rounds(queries, engines), "transaction": rounds(transactions, engines)}
    json.dump({"sqlalchemy": sqlalchemy.__version__, "seconds": of}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
