# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of a SQLAlchemy engine, as the application sees it: queries, transactions, connection pool.

Depends on prometheus_client and SQLAlchemy 2 alone (driver_pools not even on that) and may be copied alone. One line
per engine, sync or async:

    instrument_engine(engine, pool="main", query_names=("list_items",))

    session.execute(select(Item), execution_options={"query_name": "list_items"})   # optional, for a query of its own

Labels come from fixed lists (metrics.py), and nothing here ever raises into a query. What counts as what:

- A query (queries.py) is one execution of a cursor: an `executemany`, or one batch of an ORM bulk insert, is one.
  Failed ones are timed too. Rows that a server-side cursor fetches later are not part of the time.
- A transaction (transactions.py) is one that reached the database: `begin` without a statement is none; every statement
  of an AUTOCOMMIT connection is one. A session that only read and then closed is a `rollback`, for SQLAlchemy as for
  PostgreSQL, so a high share of rollbacks is no fault in itself.
- The wait for the pool (pool.py) is the time until a connection became free: opening and pinging one is none of it.
- An error has the same SQLSTATE class with every driver (errors.py); 08 where the connection is lost or refused.
- DBAPI connections taken with `engine.raw_connection()` are in the pool's metrics; their statements are not seen, and
  neither are those that a `do_execute` listener answers in the driver's place.
"""

from typing import TYPE_CHECKING, Any

from .errors import SQLSTATE_CLASSES
from .metrics import OUTCOMES
from .sql import OPERATIONS, operation_of

if TYPE_CHECKING:
    from .engine import Instrumentation, instrument_engine

__all__ = ["OPERATIONS", "OUTCOMES", "SQLSTATE_CLASSES", "Instrumentation", "instrument_engine", "operation_of"]


def __getattr__(name: str) -> Any:
    """What needs SQLAlchemy is imported when it is asked for: a service with `driver_pools` alone has none."""
    if name in ("Instrumentation", "instrument_engine"):
        from . import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
