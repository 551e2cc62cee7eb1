# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of a SQLAlchemy engine, as the application sees it: queries, transactions, connection pool.

Depends only on prometheus_client and SQLAlchemy 2 (driver_pools only on prometheus_client), and can be copied alone.
One line per engine, sync or async:

    instrument_engine(engine, pool="main", query_names=("list_items",))

    session.execute(select(Item), execution_options={"query_name": "list_items"})   # optional: names the query

Label values come from fixed lists (metrics.py), and errors of the measurement never reach a query. Definitions:

- A query (queries.py) is one execution of a cursor; an `executemany`, or one batch of an ORM bulk insert, counts as
  one. Failed queries are timed too. The time does not include rows that a server-side cursor fetches later.
- A transaction (transactions.py) is one that reached the database: `begin` without a statement does not count, but
  every statement of an AUTOCOMMIT connection does. A session that only reads and is closed ends with a `rollback`, in
  SQLAlchemy and PostgreSQL alike, so a high share of rollbacks is not a problem in itself.
- The checkout wait (pool.py) is the time until a connection became free, without opening and pinging it.
- An error has the same SQLSTATE class with every driver (errors.py); 08 if the connection is lost or refused.
- DBAPI connections taken with `engine.raw_connection()` are in the pool's metrics, but their statements are not
  measured, nor are those that a `do_execute` listener executes in place of the driver.
"""

from typing import TYPE_CHECKING, Any

from .errors import SQLSTATE_CLASSES
from .metrics import OUTCOMES
from .sql import OPERATIONS, operation_of

if TYPE_CHECKING:
    from .engine import Instrumentation, instrument_engine

__all__ = ["OPERATIONS", "OUTCOMES", "SQLSTATE_CLASSES", "Instrumentation", "instrument_engine", "operation_of"]


def __getattr__(name: str) -> Any:
    """Import what needs SQLAlchemy on first use: a service that only uses `driver_pools` may not have it installed."""
    if name in ("Instrumentation", "instrument_engine"):
        from . import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
