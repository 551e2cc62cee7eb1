# SPDX-License-Identifier: Apache-2.0
"""The pools of psycopg_pool and asyncpg, for services without SQLAlchemy: connections, waits, and queries by name.

    pool = instrument_pool(ConnectionPool(...), "main", query_names=("list_items",))     # or AsyncConnectionPool
    pool = instrument_pool(await asyncpg.create_pool(...), "main", query_names=("list_items",))

    with query_name("list_items"):                          # optional, for a query of its own
        rows = await connection.fetch("SELECT ...")

The metrics are those of metrics.py; give every pool of a process a name of its own. What differs from an engine:

- Not counted: transactions, which neither driver reports; prepared statements of asyncpg; COPY; server-side cursors;
  psycopg's stream(). In psycopg's pipeline mode a query is timed until it is queued, and an error that only the end of
  the pipeline raises is none of a query's.
- The wait is the time until a connection was there. psycopg_pool opens connections in the background, so that waiting
  for one that is being opened is waiting; with asyncpg the opening is left out.
- The gauges are as of the last connection that was taken or given back; idle ones come and go without that.
- asyncpg's BEGIN and COMMIT are queries (`OTHER`); what it sends when a connection is given back is none.

    measure    what both have in common        psycopg, asyncpg    where each one's pools are watched
"""

from collections.abc import Iterable
from typing import TypeVar

from .asyncpg import measure_asyncpg
from .measure import Measure, query_name
from .psycopg import measure_psycopg

__all__ = ["instrument_pool", "query_name"]

Pool = TypeVar("Pool")


def instrument_pool(pool: Pool, name: str = "main", query_names: Iterable[str] = ()) -> Pool:
    """Measure a pool from now on, and return it. An asyncpg pool must be initialised: `await create_pool()`.

    Raises:
        TypeError: for what is no pool of psycopg_pool or asyncpg, and for a single query name where a list belongs.
    """
    if isinstance(query_names, str):  # its letters would be the names
        raise TypeError(f"query_names must be a list of names, such as ({query_names!r},)")
    packages = {cls.__module__.partition(".")[0] for cls in type(pool).__mro__}
    measure = measure_psycopg if "psycopg_pool" in packages else measure_asyncpg if "asyncpg" in packages else None
    if measure is None:
        raise TypeError(f"expected a pool of psycopg_pool or asyncpg, not a {type(pool).__name__}")
    if not hasattr(pool, "_sightline_measure"):
        measure(pool, Measure(name, frozenset(query_names)))
    return pool
