"""What the database telemetry costs: a bare SELECT 1 on a real PostgreSQL, with and without it, interleaved in one run.

    python -m bench.bench_database

Fails if a query costs more than 10 microseconds (CPU time of this process). The OpenTelemetry instrumentation is
measured beside it where it is installed. Engines take turns, and the median of the rounds' differences counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from importlib.util import find_spec

from sqlalchemy import Connection, Engine, create_engine, text

from app.telemetry.database import instrument_engine
from tests import servers

ROUNDS = 25
QUERIES = 400
QUERY_SECONDS = 10e-6
ONE = text("SELECT 1")


def cost(connection: Connection) -> float:
    """CPU seconds of a query."""
    started = time.process_time()
    for _ in range(QUERIES):
        connection.execute(ONE)
    return (time.process_time() - started) / QUERIES


def opentelemetry(engine: Engine) -> bool:
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.instrumentation"):
        return False
    if not find_spec("opentelemetry.instrumentation.sqlalchemy"):
        return False
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # type: ignore[import-not-found]

    SQLAlchemyInstrumentor().instrument(engine=engine)
    return True


def main() -> int:
    with servers.postgres() as postgres:
        url = postgres.dsn().replace("postgresql:", "postgresql+psycopg:")
        engines = {"bare": create_engine(url), "Sightline": create_engine(url), "OpenTelemetry": create_engine(url)}
        instrument_engine(engines["Sightline"], pool="bench")
        if not opentelemetry(engines["OpenTelemetry"]):
            del engines["OpenTelemetry"]
            print("OpenTelemetry's SQLAlchemy instrumentation is not installed: not compared")
        connections = {name: engine.connect() for name, engine in engines.items()}
        rounds: dict[str, list[float]] = {name: [] for name in connections}
        for _ in range(ROUNDS):
            for name, connection in connections.items():
                rounds[name].append(cost(connection))
        for connection in connections.values():
            connection.close()
    extra = {
        name: statistics.median(mine - bare for mine, bare in zip(seconds, rounds["bare"], strict=True))
        for name, seconds in rounds.items()
    }
    print(f"SELECT 1, CPU time: bare {statistics.median(rounds['bare']) * 1e6:.1f} us")
    for name in list(extra)[1:]:
        print(f"  {name:14} +{extra[name] * 1e6:5.1f} us a query")
    if extra["Sightline"] > QUERY_SECONDS:
        print(
            f"A query costs {extra['Sightline'] * 1e6:.1f} us more, the limit is {QUERY_SECONDS * 1e6:.0f}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
